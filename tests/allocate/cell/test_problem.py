"""The referee, what is refused, the settings, and plans as arrays and as JSON."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from sflam.allocate.cell import optimal
from sflam.allocate.cell.problem import Problem
from sflam.allocate.cell.shares import Shares
from sflam.allocate.referee import Found, make_plan, score
from sflam.allocate.registry import CELL_METHODS, allocate
from sflam.allocate.settings import METHODS as NAMES
from sflam.allocate.settings import PlanSettings
from sflam.errors import AllocationError, ConfigError
from sflam.network.reference import ref_a
from sflam.plan import DevicePlan, DevicePlans, Status
from tests.allocate.cell.builders import WORK, reference


def shares(problem: Problem, **changes: Any) -> Shares:
    """Return equal shares at full power and speed, changed."""
    count = len(problem)
    whole = Shares(
        bandwidth=np.full(count, 20e6 / count),
        power=problem.network.max_power,
        clock=problem.network.max_clock,
    )
    return replace(whole, **changes)


def test_the_referee_computes_by_hand() -> None:
    problem = reference(
        2, latency_weight=0.25, base_s=2.0, base_j=3.0, local_steps=2, delay=(0.5, 0.0), cut=(0, 1)
    )
    network = problem.network
    found = score(problem, shares(problem))
    rate = 10e6 * np.log2(1 + network.max_power * network.gain[0] / (network.noise * 10e6))
    transmit = 2 * 19_466_752 / rate
    flops = np.array([WORK.device_forward[0], WORK.device_forward[1] + WORK.device_backward[1]])
    compute = 2 * flops / (512 * network.max_clock)
    np.testing.assert_allclose(found.transmit, transmit, rtol=1e-12)
    np.testing.assert_allclose(found.compute, compute, rtol=1e-12)
    latency = 2 + (np.array([1.0, 0.0]) + transmit + compute).max()
    energy = 3 + (network.max_power * transmit + 1e-28 * network.max_clock**3 * compute).sum()
    assert found.latency == pytest.approx(latency) and found.energy == pytest.approx(energy)
    assert found.objective == pytest.approx(0.25 * latency + 0.75 * energy)
    assert found.violations == {}


@pytest.mark.parametrize(
    ("limit", "changes", "broken"),
    [
        ("bandwidth", {}, {"bandwidth": np.full(4, 5.1e6)}),
        ("power", {}, {"power": np.full(4, 0.3)}),
        ("clock", {}, {"clock": np.full(4, 2e9)}),
        ("deadline", {"deadline": 1e-2}, {}),
        ("radio_cap", {"radio_cap": 1e-3}, {}),
        ("compute_cap", {"compute_cap": 1e-3}, {}),
        ("energy_cap", {"energy_cap": 1e-3}, {}),
        ("not a positive number", {}, {"power": np.array([0.1, 0.0, np.nan, -1.0])}),
    ],
)
def test_every_broken_limit_is_seen(limit: str, changes: dict[str, Any], broken: dict[str, Any]) -> None:
    problem = reference(4, **changes)
    given = shares(problem, **broken)
    assert limit in score(problem, given).violations
    made = make_plan("mine", Found(problem=problem, shares=given))
    assert made.status is Status.INFEASIBLE and any(limit in sentence for sentence in made.advice)


def test_memory_is_seen() -> None:
    problem = reference(4)
    network = replace(problem.network, memory=np.array([1e12, 1e8, 1e12, 1e8]), names=("a", "b", "c", "d"))
    small = problem.change(network=network)
    assert "memory" in score(small, shares(small)).violations
    assert "b, d would need 264.46 MB" in optimal.solve(small).advice[0]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("gain", 0.0, "gain of device 1 is 0.0; it must be positive and finite"),
        ("gain", np.nan, "gain of device 1 is nan"),
        ("gain", np.inf, "gain of device 1 is inf"),
        ("max_power", -1.0, "max_power of device 1"),
        ("max_clock", 0.0, "max_clock of device 1"),
        ("kappa", -1e-28, "kappa of device 1"),
        ("energy_weight", np.nan, "energy_weight of device 1"),
        ("memory", np.nan, "memory of device 1 is nan; it must be 0 or more"),
        ("bandwidth", 0.0, "bandwidth is 0.0; it must be positive"),
        ("noise", 0.0, "noise is 0.0; it must be positive"),
    ],
)
def test_impossible_networks_are_refused(field: str, value: float, message: str) -> None:
    network = ref_a(3)
    if field == "noise":
        broken = replace(network, noise=value)
    else:
        array = getattr(network, field).copy()
        array[..., min(1, array.shape[-1] - 1)] = value
        broken = replace(network, **{field: array})
    with pytest.raises(AllocationError, match=message):
        reference(3).change(network=broken)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": ref_a(0)}, "no devices"),
        ({"server": 1}, "server 1 of 1"),
        ({"cut": 13}, "cut 13 of a model with 12 blocks"),
        ({"bits": 17}, "bits 17; bits are 1 to 16"),
        ({"bits": (8, 8)}, "one number, or one per device"),
        ({"delay": -1.0}, "delay holds -1.0"),
        ({"delay": np.nan}, "delay holds nan"),
        ({"latency_weight": 1.5}, "latency_weight is 1.5"),
        ({"latency_weight": 0.0}, "without a deadline"),
        ({"deadline": 0.0}, "deadline is 0.0"),
        ({"local_steps": 0}, "local_steps is 0"),
        ({"base_s": -1.0}, "base_s is -1.0"),
        ({"bit_choices": (17,)}, "bit_choices"),
    ],
)
def test_impossible_requests_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(AllocationError, match=message):
        reference(3, **changes) if "network" not in changes else reference(3).change(**changes)


def test_every_method_is_there_and_an_unknown_one_is_not() -> None:
    assert set(CELL_METHODS) == set(NAMES)
    problem = reference(3)
    options = {name: {"count": 6} for name in ("subchannels", "bcd-matching")}
    best = allocate(problem).objective
    for name in CELL_METHODS:
        if name in ("oracle", "cut", "bits", "bcd-bits", "fixed-bits", "subchannel-bits"):
            continue
        made = allocate(problem, name, **options.get(name, {}))
        assert made.method == name and made.objective >= best * (1 - 1e-9) and made.solve_s > 0
    with pytest.raises(AllocationError, match="did you mean 'optimal'"):
        allocate(problem, "optimall")


def test_settings_tell_all_problems_together() -> None:
    with pytest.raises(ConfigError) as raised:
        PlanSettings(
            method="best",
            optimize=("power",),
            latency_weight=2,
            deadline=-1,
            bits_least=9,
            bits_most=3,
            local_steps=0,
        )
    assert len(raised.value.problems) == 6


def test_a_plan_is_json_and_a_sequence_of_devices() -> None:
    made = optimal.solve(reference(4))
    read = json.loads(json.dumps(made.to_dict(), allow_nan=False))
    assert {"method", "objective", "lower_bound", "gap", "latency_s", "energy_j", "status", "solve_s"} <= set(
        read
    )
    assert len(read["devices"]) == 4
    assert set(read["devices"][0]) == {field.name for field in fields(DevicePlan)}
    assert read["devices"][3]["power"] == made.devices[3].power == made.devices.power[3]
    assert [device.bits for device in made.devices] == [8] * 4 and isinstance(made.devices[0].bits, int)
    assert len(made.devices[1:3]) == 2 and made.devices[-1] == made.devices[3]
    with pytest.raises(IndexError):
        made.devices[4]
    with pytest.raises(AttributeError):
        _ = made.devices.watts
    nothing = json.loads(json.dumps(optimal.solve(reference(4, deadline=1e-3)).to_dict(), allow_nan=False))
    assert nothing["status"] == "infeasible" and nothing["objective"] is None and nothing["devices"] == []


def test_columns_stand_for_all_devices() -> None:
    columns = dict.fromkeys(
        ("bandwidth", "power", "clock", "compute_s", "transmit_s", "compute_j", "transmit_j"), 1.0
    )
    plans = DevicePlans(3, cut=[0, 1, 2], bits=4, **columns)
    assert plans[2] == DevicePlan(cut=2, bits=4, **columns)
    assert plans.server_clock.tolist() == [0.0] * 3
