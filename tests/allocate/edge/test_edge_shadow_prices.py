"""What a server's band and clock and a user's power are worth, against solutions with a little more of each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sflam.allocate.edge import dual, exhaustive
from sflam.allocate.edge.market import settle
from sflam.allocate.edge.shadow_prices import edge_shadow_prices
from sflam.plan import ALL_LOCAL
from tests.allocate.edge.edges import random_edge, square

STEP = 1e-4


def slope(problem, server, split, name, index):
    """Return by how much the objective falls per unit more of a limit, two-sided."""
    found = []
    for sign in (-1, 1):
        values = getattr(problem.network, name).astype(float).copy()
        values[index] *= 1 + sign * STEP
        network = replace(problem.network, **{name: values})
        found.append(settle(replace(problem, network=network), server, split).objective)
    return (found[0] - found[1]) / (2 * STEP * getattr(problem.network, name)[index])


@pytest.mark.parametrize("seed", range(25))
def test_prices_are_slopes_of_the_optimum(seed):
    problem = random_edge(seed)
    plan = dual.solve(problem, rounds=100)
    server, split = plan.devices.server, plan.devices.cut
    prices = edge_shadow_prices(problem, settle(problem, server, split))
    scale = plan.objective
    for m in range(problem.servers):
        for name, column in (("bandwidth", prices.bandwidth), ("server_clock", prices.clock)):
            limit = getattr(problem.network, name)[m]
            assert column[m] * limit == pytest.approx(
                slope(problem, server, split, name, m) * limit, abs=2e-4 * scale
            )
    for user in range(len(problem)):
        limit = problem.network.max_power[user]
        found = slope(problem, server, split, "max_power", user) * limit
        assert prices.power[user] * limit == pytest.approx(found, abs=2e-4 * scale)
        if server[user] == ALL_LOCAL:
            assert prices.power[user] == 0


def test_a_crowded_server_s_band_is_worth_more():
    problem = square(12, 3, layers=6)
    plan = dual.solve(problem)
    prices = plan.shadow_prices
    assert (prices.bandwidth > 0).any()
    less = replace(problem.network, bandwidth=problem.network.bandwidth / 4)
    tight = dual.solve(replace(problem, network=less)).shadow_prices
    assert tight.bandwidth.max() > prices.bandwidth.max()
    values = plan.to_dict()["shadow_prices"]
    assert set(values) == {"bandwidth_per_hz", "clock_per_hz", "power_per_w"}
    assert len(values["bandwidth_per_hz"]) == 3 and len(values["power_per_w"]) == 12
    small = square(3, 2, layers=4)
    np.testing.assert_allclose(
        exhaustive.solve(small).shadow_prices.bandwidth, dual.solve(small).shadow_prices.bandwidth, rtol=1e-6
    )
