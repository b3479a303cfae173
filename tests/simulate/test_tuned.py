"""Adapters in some blocks: what crosses, what is computed and what is charged follow what is trained."""

from __future__ import annotations

import pytest

from sflam.errors import ConfigError
from sflam.sizes import HEADER_BYTES
from tests.simulate.builders import ran, started
from tests.simulate.test_books import PLAIN, assert_as_planned


@pytest.mark.parametrize(
    "more",
    [
        ("model.tuned=1",),
        ("model.tuned=-1",),
        ("model.tuned=-2",),
        ("model.tuned=-2", "model.labels=device"),
        ("model.tuned=2", "learn.aggregation=freeze-a"),
        ("model.tuned=-1", "learn.cache=device"),
        ("model.tuned=-1", "learn.method=sfl-v2"),
        ("model.tuned=1", "learn.method=fedlora"),
    ],
    ids=" ".join,
)
def test_what_is_charged_is_what_was_planned(small, tmp_path, more):
    run = ran(small, tmp_path / "run", *PLAIN, "model.cut=2", "learn.rounds=2", *more)
    for record in run.records:
        assert_as_planned(record)
    blocks = {name.split(".layers.")[1].split(".")[0] for name in run.state if ".layers." in name}
    assert len(blocks) == abs(int(more[0].partition("=")[2]))


def test_less_is_sent_computed_and_spent_where_less_is_trained(small, tmp_path):
    """Last blocks alone: no gradient comes back, devices go forward alone, and no adapter of theirs moves."""
    common = (*PLAIN, "model.cut=2", "learn.rounds=1")
    first, last = (ran(small, tmp_path / f"{n}", *common, f"model.tuned={n}").records[0] for n in (1, -1))
    assert last.bytes_down == last.device_steps * HEADER_BYTES, "losses alone"
    assert set(last.charge.payload_down) == {0} and min(first.charge.payload_down) > 0
    assert last.adapter_bytes_up == last.adapter_bytes_down == 0 < first.adapter_bytes_up
    assert last.bytes_up == first.bytes_up and last.charge.compute_j < first.charge.compute_j


def test_activations_that_adapters_would_change_are_not_kept(small, tmp_path):
    with pytest.raises(ConfigError, match="devices cut at 2 train the blocks from 1 on"):
        started(small, tmp_path / "run", "model.cut=2", "model.tuned=-2", "learn.cache=device")
    with pytest.raises(ConfigError, match="devices train the blocks they keep"):
        started(small, tmp_path / "run", "model.cut=2", "model.tuned=1", "learn.cache=device")
