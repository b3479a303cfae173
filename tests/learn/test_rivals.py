"""What reviewers ask for, on two devices and three rounds: cut or whole, each is the oracle's arithmetic.

Two unlike devices, shares of 8 and 13 rows; float64. A killed run goes on with what each method remembers.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from sflam.learn import checkpoint
from sflam.learn.evaluate import Score
from sflam.learn.federated import Federated
from sflam.learn.round import train
from sflam.learn.settings import FleetSettings
from sflam.model.adapters import state_of
from tests.learn.builders import IDENTITY, LEARN, adapted, assert_equal_states, local_fleet, parts_of, run
from tests.learn.plain_rivals import PlainRivals

SIZES = (8, 13)
PLAIN_STEPS = {"optimizer": "sgd", "clip": 0.0, "weight_decay": 0.0, "lr": 0.05}
RIVALS = {
    "fedprox": {"local": "fedprox", "prox": 0.5},
    "scaffold": {"local": "scaffold", **PLAIN_STEPS},
    "fedlc": {"local": "fedlc", "logit_tau": 0.7},
    "fedavgm": {"server_optimizer": "momentum", "server_lr": 0.7},
    "fedadam": {"server_optimizer": "adam", "server_lr": 0.02, "server_beta2": 0.6},
    "fedyogi": {"server_optimizer": "yogi", "server_lr": 0.02, "server_epsilon": 1e-2},
    "flexlora": {"aggregation": "svd"},
    "ffa-lora": {"aggregation": "freeze-a"},
    "all": {"local": "fedprox", "prox": 0.5, "server_optimizer": "adam", "server_lr": 0.02},
}
REMEMBER = ("scaffold", "fedavgm", "fedadam", "fedyogi")
WHOLE, CUT = "fedlora", "sflam"


def fleet_of(method, learn, kind="vit", *, sizes=SIZES, cut=1, **options):
    """Return a fleet of fresh devices, its first state, and the pieces of an oracle."""
    backbone, model, examples = adapted(kind)
    learn, parts = replace(learn, method=method), parts_of(sizes)
    start, settings = state_of(model), FleetSettings(devices=len(sizes))
    if method == CUT or "trunk" in options:
        options.pop("trunk", None)
        fleet = local_fleet(backbone, model, examples, parts, cut=cut, learn=learn, **options)
    else:
        fleet = Federated(model, examples, parts, settings=settings, learn=learn, seed=3)
    fresh, again, _ = adapted(kind)
    oracle = PlainRivals(
        fresh,
        again,
        examples,
        parts,
        cuts=[cut] * len(sizes),
        settings=settings,
        learn=learn,
        quant=IDENTITY,
        seed=3,
        whole=method == WHOLE,
    )
    return fleet, start, oracle


@pytest.mark.parametrize("method", [WHOLE, CUT])
@pytest.mark.parametrize("rival", [name for name in RIVALS if name != "ffa-lora"])
def test_each_is_the_arithmetic_of_its_paper(method, rival):
    learn = replace(LEARN, local_steps=3, **RIVALS[rival])
    fleet, start, oracle = fleet_of(method, learn)
    _, found = run(fleet, start, 3)
    assert_equal_states(found, oracle.trained(3))
    plain, start, _ = fleet_of(method, replace(learn, local="", server_optimizer="", aggregation=""))
    other = run(plain, start, 3)[1]
    assert any((found[name] - other[name]).abs().max() > 1e-5 for name in found), "it does something"


@pytest.mark.parametrize("method", [WHOLE, CUT])
@pytest.mark.parametrize("rival", REMEMBER)
def test_a_killed_run_goes_on_bit_equal(method, rival, tmp_path):
    learn = replace(LEARN, local_steps=2, canonical=True, **RIVALS[rival])
    whole, start, _ = fleet_of(method, learn)
    _, expected = run(whole, start, 3)
    first, _, _ = fleet_of(method, learn)
    *_, (_, half) = train(first, start, nothing, range(2))
    checkpoint.save(tmp_path, {"fleet": first.state(), "adapters": half})
    saved = checkpoint.load(tmp_path)
    second, _, _ = fleet_of(method, learn)
    second.restore(saved["fleet"])
    *_, (_, found) = train(second, saved["adapters"], nothing, range(2, 3))
    assert all((found[name] == expected[name]).all() for name in expected)
    forgetful, _, _ = fleet_of(method, learn)
    *_, (_, lost) = train(forgetful, half, nothing, range(2, 3))
    assert any((lost[name] != expected[name]).any() for name in expected), "what it remembers matters"


def nothing(state):
    return Score(0.0, 0.0)


@pytest.mark.parametrize("local", ["fedprox", "scaffold"])
def test_a_shared_trunk_does_not_drift(local):
    """One step: the device halves of the plain run, then amended; the trunk steps as it does without."""
    learn = replace(LEARN, local_steps=2, trunk="shared", server_update="mixed", **RIVALS[local])
    fleet, start, _ = fleet_of(CUT, learn, cut=2)
    amended = []
    fleet.rule.amend = lambda device, values, gradients: amended.extend(gradients)
    run(fleet, start, 1)
    below = set(fleet.devices.segment.names(2))
    assert below and set(amended) == below
    assert not set(amended) & set(next(iter(fleet.servers.trunks.values())).segment.names(2))


def test_control_variates_are_counted_as_bytes_both_ways():
    """As large as the adapters a device holds, whichever these are; the server keeps those of its own copies."""
    learn = replace(LEARN, local_steps=2, **RIVALS["scaffold"])
    for method in (WHOLE, CUT):
        (plain,) = run(*fleet_of(method, replace(learn, local=""))[:2], 1)[0]
        (record,) = run(*fleet_of(method, learn)[:2], 1)[0]
        assert record.adapter_bytes_up == 2 * plain.adapter_bytes_up > 0
        assert record.adapter_bytes_down == 2 * plain.adapter_bytes_down > 0
        assert record.bytes_up == plain.bytes_up


def test_scaffold_under_adam_and_clipping_uses_mean_gradients():
    """(x - y) / (S eta) is no gradient there: what a device remembers is the mean of its own gradients."""
    learn = replace(LEARN, local_steps=3, local="scaffold")
    fleet, start, _ = fleet_of(WHOLE, learn, sizes=(12, 12))
    seen, amend = {0: [], 1: []}, fleet.rule.amend

    def watched(device, values, gradients):
        seen[device].append({name: gradient.clone() for name, gradient in gradients.items()})
        amend(device, values, gradients)

    fleet.rule.amend = watched
    run(fleet, start, 1)
    for device, steps in seen.items():
        mean = {name: sum(step[name] for step in steps) / 3 for name in steps[0]}
        assert_equal_states({name: fleet.rule.own[device][name] for name in mean}, mean)
    middle = {name: (fleet.rule.own[0][name] + fleet.rule.own[1][name]) / 2 for name in start}
    assert_equal_states(fleet.rule.common, middle)
