"""Adapters in some blocks: what crosses, what is computed and what is charged follow what is trained."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from sflam import config
from sflam.errors import ConfigError
from sflam.records import history
from sflam.simulate.setup import deepest_placements
from sflam.sizes import HEADER_BYTES
from tests.simulate.builders import SQUARE, ran, started
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
        ("fleet.tuned=[1, -1, 0]",),
    ],
    ids=" ".join,
)
def test_what_is_charged_is_what_was_planned(small, tmp_path, more):
    run = ran(small, tmp_path / "run", *PLAIN, "model.cut=2", "learn.rounds=2", *more)
    for record in run.records:
        assert_as_planned(record)
    blocks = {name.split(".layers.")[1].split(".")[0] for name in run.state if ".layers." in name}
    assert len(blocks) == (3 if "fleet" in more[0] else abs(int(more[0].partition("=")[2])))


def test_less_is_sent_computed_and_spent_where_less_is_trained(small, tmp_path):
    """Last blocks alone: no gradient comes back, devices go forward alone, and no adapter of theirs moves."""
    common = (*PLAIN, "model.cut=2", "learn.rounds=1")
    first, last = (ran(small, tmp_path / f"{n}", *common, f"model.tuned={n}").records[0] for n in (1, -1))
    assert last.bytes_down == last.device_steps * HEADER_BYTES, "losses alone"
    assert set(last.charge.payload_down) == {0} and min(first.charge.payload_down) > 0
    assert last.adapter_bytes_up == last.adapter_bytes_down == 0 < first.adapter_bytes_up
    assert last.bytes_up == first.bytes_up and last.charge.compute_j < first.charge.compute_j


CHOSEN = (*SQUARE, "learn.evaluate_every=0", 'plan.optimize=["clock", "tuned"]', "plan.fit=[2.0, 1.0, 0.9]")


def test_plans_among_several_servers_choose_what_is_trained(small, tmp_path):
    """Every round: what is charged is what was planned, and no adapter moves that nobody of the round tunes."""
    wishes = ("learn.rounds=2", "plan.fit_weight=0.01", "plan.stability_weight=5", "plan.samples=20")
    run = started(small, tmp_path / "run", *CHOSEN, *wishes)
    state = run.state
    for record in run.rounds():
        charge = record.charge
        assert charge.charged_s == pytest.approx(charge.predicted_s, rel=1e-9)
        assert charge.charged_j == pytest.approx(charge.predicted_j, rel=1e-9)
        assert set(charge.tuned) <= {1, 2, 3} and len(charge.tuned) == 5
        for name, tensor in run.state.items():
            block = name.split(".layers.")[1].split(".")[0] if ".layers." in name else "-1"
            moves = "lora_B" in name or block == "-1"
            assert not moves or torch.equal(tensor, state[name]) == (int(block) >= max(charge.tuned))
        state = run.state


def test_the_weight_of_instability_decides_what_a_run_trains(small, tmp_path):
    """fleet.plan = computed: the plan's numbers are the job's from then on, and rounds keep them."""
    tuned = []
    for weight in (0, 1e4):
        wishes = (
            "learn.rounds=1",
            "plan.fit_weight=1",
            f"plan.stability_weight={weight}",
            "fleet.plan=computed",
        )
        run = ran(small, tmp_path / f"{weight}", *CHOSEN, *wishes)
        assert run.records[0].charge.tuned == run.job.fleet.tuned
        tuned.append(run.job.fleet.tuned)
    assert tuned == [(3,) * 5, (1,) * 5]
    less, more = (history.read(tmp_path / f"{weight}" / "history.jsonl")[1][0] for weight in (1e4, 0))
    assert less.adapter_bytes_up < more.adapter_bytes_up
    stay = [user for user in range(5) if less.charge.cuts[user] == more.charge.cuts[user]]
    assert stay and all(less.charge.compute_s[user] < more.charge.compute_s[user] for user in stay)


def test_activations_that_adapters_would_change_are_not_kept(small, tmp_path):
    with pytest.raises(ConfigError, match="devices cut at 2 train the blocks from 1 on"):
        started(small, tmp_path / "run", "model.cut=2", "model.tuned=-2", "learn.cache=device")
    with pytest.raises(ConfigError, match="devices train the blocks they keep"):
        started(small, tmp_path / "run", "model.cut=2", "model.tuned=1", "learn.cache=device")


def test_the_deepest_round_has_the_blocks_that_its_plan_tuned():
    tuned = ("network.simulate=true", 'plan.optimize=["clock", "cut", "tuned"]')
    job = config.load(
        None,
        [*SQUARE, "fleet.devices=2", "plan.fit=[2.0, 1.0, 0.9, 0.8, 0.8, 0.8]", *tuned, "plan.method=dual"],
    )
    charge = SimpleNamespace(cuts=(3, 4), servers=(0, 1), tuned=(1, 2))
    found = deepest_placements(job, [SimpleNamespace(charge=charge)])
    assert [(each.cut, each.server, each.tuned) for each in found] == [(3, 0, 1), (4, 1, 2)]
