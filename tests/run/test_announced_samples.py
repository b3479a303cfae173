"""``fleet.most_samples``: no device of a run has more; a served one that announces more is refused."""

from __future__ import annotations

import pytest

from sflam.config import load
from sflam.errors import ConfigError
from sflam.run.assemble import assemble
from sflam.run.conditions import SERVE
from sflam.serve.contracts import contracts_of


def test_a_run_in_which_a_device_has_more_does_not_begin(small):
    most = max(map(len, assemble(load(None, [*small])).parts))
    assert assemble(load(None, [*small, f"fleet.most_samples={most}"]))
    with pytest.raises(
        ConfigError, match=rf"device \d+ has {most} samples, and fleet.most_samples is {most - 1}; raise"
    ):
        assemble(load(None, [*small, f"fleet.most_samples={most - 1}"]))


def test_of_a_served_run_it_is_agreed_with_every_device_whatever_the_server_shares_out(small):
    found = assemble(load(None, [*small, "fleet.most_samples=2"]), command=SERVE)
    assert {contract.most_samples for contract in contracts_of(found, found.halves).values()} == {2}


def test_a_negative_limit_is_refused():
    with pytest.raises(ConfigError, match=r"fleet\.most_samples is -1"):
        load(None, ["fleet.most_samples=-1"])
