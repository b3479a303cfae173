"""Personal parts: every device trains its own on top of what is averaged, and nothing of them is ever sent."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from sflam.cost.training import Training, step_of
from sflam.data.batches import round_batches
from sflam.errors import ConfigError
from sflam.learn import checkpoint
from sflam.learn.evaluate import Score
from sflam.learn.federated import Federated
from sflam.learn.personal import head_of
from sflam.learn.settings import FleetSettings
from sflam.model.adapters import PREFIX, load_state, state_of
from sflam.model.architecture import read
from sflam.model.dummy_inputs import with_mask
from sflam.model.settings import ModelSettings
from sflam.sizes import adapter_body_bytes
from tests.learn.builders import LEARN, adapted, assert_equal_states, local_fleet, parts_of, run
from tests.tiny import CLASSES

# One clip of the whole gradient is not one clip per side.
UNCLIPPED = replace(LEARN, clip=0.0, state="keep")
SIZES = [9, 4, 14]
SEED = 3


def with_head(kind="vit"):
    return adapted(kind, model_settings=ModelSettings(rank=2, trainable="lora+head"))


def own_names(start, kind, cut):
    """Return the personal tensors, from the names alone."""
    blocks = {n: int(n.split(".layers.")[1].split(".")[0]) for n in start if ".layers." in n}
    assert 0 < len(blocks) < len(start)
    if kind == "head":
        return [name for name in start if name not in blocks]
    return [name for name, block in blocks.items() if block < cut]


def by_hand(model, examples, parts, learn, rounds, personal):
    """Every device alone, with the unmodified class; then the mean of all but ``personal``, by samples.

    Returns the shared adapters, with the start values of what is personal, and each device's own.
    """
    start = state_of(model)
    shared, own, kept = dict(start), {}, {}
    for number in range(rounds):
        states = []
        for device, part in enumerate(parts):
            load_state(model, shared | own.get(device, {}))
            trained = [p for p in model.parameters() if p.requires_grad]
            adam = torch.optim.AdamW(trained, lr=learn.practice.lr, weight_decay=learn.weight_decay)
            if device in kept:
                adam.load_state_dict(kept[device])
            for rows in round_batches(part, learn.batch, seed=SEED, round=number, device=device, epochs=1):
                one = examples.take(rows)
                adam.zero_grad()
                model(**with_mask(one.inputs, one.lengths), labels=one.labels).loss.backward()
                adam.step()
            kept[device] = copy.deepcopy(adam.state_dict())
            after = state_of(model)
            own[device] = {name: after[name] for name in personal}
            states.append(after)
        total = sum(map(len, parts))
        mean = {n: sum(s[n] * (len(p) / total) for s, p in zip(states, parts, strict=True)) for n in start}
        shared = mean | {name: start[name] for name in personal}
    return shared, own


@pytest.mark.parametrize(
    ("method", "labels", "kind"),
    [
        ("fedlora", "server", "head"),
        ("sflam", "server", "head"),
        ("sflam", "device", "head"),
        ("sflam", "server", "device-half"),
    ],
)
def test_equals_devices_trained_by_hand(method, labels, kind):
    backbone, model, examples = with_head()
    learn = replace(UNCLIPPED, method=method, personal=kind)
    parts, start = parts_of(SIZES), state_of(model)
    personal = own_names(start, kind, cut=2)
    expected = by_hand(copy.deepcopy(model).train(), examples, parts, learn, 3, personal)
    if method == "fedlora":
        settings = FleetSettings(devices=3)
        fleet = Federated(model, examples, parts, settings=settings, learn=learn, seed=SEED)
    else:
        fleet = local_fleet(backbone, model, examples, parts, cut=2, learn=learn, labels=labels)
    _, shared = run(fleet, start, 3)
    assert_equal_states(shared, expected[0])
    for name in personal:
        assert torch.equal(shared[name], start[name]), "the global state keeps the start values"
    for device in range(3):
        assert_equal_states(fleet.own_parts()[device], expected[1][device])
    moved = [fleet.own_parts()[device][personal[0]] for device in range(3)]
    assert not torch.equal(moved[0], moved[1])


def test_a_shared_trunk_with_own_device_halves():
    """Each device's composed model is its own half on the one trunk: with one device, plain training of everything."""
    backbone, model, examples = with_head()
    parts, start = parts_of([10]), state_of(model)
    learn = replace(UNCLIPPED, method="sfl-v2", personal="device-half")
    fleet = local_fleet(backbone, model, examples, parts, learn=learn)
    shared, own = by_hand(
        copy.deepcopy(model).train(), examples, parts, learn, 2, own_names(start, "device-half", 1)
    )
    _, found = run(fleet, start, 2)
    assert_equal_states(found, shared)
    assert_equal_states(fleet.own_parts()[0], own[0])


@pytest.mark.parametrize("labels", ["server", "device"])
def test_personal_parts_do_not_travel(labels):
    """Adapter bodies each way hold the rest alone, exactly."""
    backbone, model, examples = with_head()
    parts, start = parts_of(SIZES), state_of(model)
    numbers = {name: tensor.numel() for name, tensor in start.items()}
    blocks = sum(numbers[name] for name in own_names(start, "device-half", 1))
    head = sum(numbers[name] for name in own_names(start, "head", 1))
    sizes = {"none": blocks + head * (labels == "device"), "head": blocks, "device-half": 0}
    for kind, size in sizes.items():
        learn = replace(LEARN, personal=kind)
        fleet = local_fleet(backbone, model, examples, parts, learn=learn, labels=labels)
        records, _ = run(fleet, start, 2)
        body = adapter_body_bytes(size, 64) if size else 0
        assert [(r.adapter_bytes_up, r.adapter_bytes_down) for r in records] == [(3 * body, 3 * body)] * 2


def test_a_device_that_never_trained_has_the_start_values():
    backbone, model, examples = with_head()
    start, learn = state_of(model), replace(LEARN, personal="head")
    fleet = local_fleet(backbone, model, examples, parts_of(SIZES), learn=learn, selected=1)
    run(fleet, start, 1)
    (trained,) = fleet.own_parts()
    assert trained in fleet.select(0)
    new = next(device for device in range(3) if device != trained)
    for name, tensor in fleet.personal.of(new).items():
        assert torch.equal(tensor, start[name])


def test_the_score_is_the_mean_of_the_devices_own_models():
    backbone, model, examples = with_head()
    fleet = local_fleet(
        backbone, model, examples, parts_of(SIZES), learn=replace(LEARN, personal="head"), selected=2
    )
    _, state = run(fleet, state_of(model), 1)
    seen = []

    def evaluate(found):
        seen.append(found)
        accuracy = 0.1 * len(seen)
        return Score(float(len(seen)), accuracy, per_class=(accuracy, None))

    score = fleet.score(state, evaluate)
    assert len(seen) == 3, "two that trained, and one model for all that did not"
    assert score.accuracy == pytest.approx(0.2)
    assert score.loss == pytest.approx(2.0)
    assert sorted(share for share, _ in score.per_device) == pytest.approx([0.1, 0.2, 0.3])
    for device, parts in fleet.own_parts().items():
        used = next(s for s in seen if all(torch.equal(s[n], t) for n, t in parts.items()))
        assert all(torch.equal(used[n], state[n]) for n in state if n not in parts), device
    new = next(device for device in range(3) if device not in fleet.own_parts())
    assert score.per_device[new] == (pytest.approx(0.3), None)


@pytest.mark.parametrize("method", ["fedlora", "sflam"])
@pytest.mark.parametrize("state", ["reset", "keep"])
def test_goes_on_bit_equal_from_a_checkpoint(method, state, tmp_path):
    def build():
        backbone, model, examples = with_head()
        learn = replace(LEARN, method=method, personal="head", state=state, canonical=True)
        if method == "sflam":
            return model, local_fleet(backbone, model, examples, parts_of(SIZES), learn=learn, selected=2)
        settings = FleetSettings(devices=3, selected=2)
        return model, Federated(model, examples, parts_of(SIZES), settings=settings, learn=learn, seed=SEED)

    from sflam.learn.round import train

    model, whole = build()
    states = [s for _, s in train(whole, state_of(model), lambda _: Score(0.0, 0.0), range(4))]
    model, first = build()
    half = [s for _, s in train(first, state_of(model), lambda _: Score(0.0, 0.0), range(2))][-1]
    checkpoint.save(tmp_path, {"adapters": half, "fleet": first.state()})
    saved = checkpoint.load(tmp_path)
    _, second = build()
    second.restore(saved["fleet"])
    last = [s for _, s in train(second, saved["adapters"], lambda _: Score(0.0, 0.0), range(2, 4))][-1]
    assert all(torch.equal(last[name], tensor) for name, tensor in states[-1].items())
    assert second.own_parts().keys() == whole.own_parts().keys()
    for device, parts in whole.own_parts().items():
        assert all(torch.equal(second.own_parts()[device][name], tensor) for name, tensor in parts.items())


def test_a_checkpoint_of_other_parts_is_refused():
    backbone, model, examples = with_head()
    fleet = local_fleet(backbone, model, examples, parts_of([4]), learn=replace(LEARN, personal="head"))
    with pytest.raises(ValueError, match="personal parts"):
        fleet.restore({"personal": {0: {"strange": torch.zeros(1)}}})


@pytest.mark.parametrize(("kind", "fix"), [("head", "lora\\+head"), ("device-half", "model.cut")])
def test_nothing_to_keep_is_refused(kind, fix):
    backbone, model, examples = adapted("gpt2-lm", model_settings=ModelSettings(rank=2))
    learn = replace(LEARN, personal=kind)
    with pytest.raises(ConfigError, match=fix):
        local_fleet(backbone, model, examples, parts_of([4]), cut=0, learn=learn)


def test_the_head_is_what_no_adapter_holds():
    names = [f"{PREFIX}encoder.layer.0.q.lora_A.weight", f"{PREFIX}encoder.layer.0.q.lora_B.weight"]
    assert head_of([*names, f"{PREFIX}classifier.weight"]) == [f"{PREFIX}classifier.weight"]


@pytest.mark.parametrize(("method", "kind", "labels"), [
    ("sflam", "head", "server"), ("sflam", "head", "device"), ("sflam", "device-half", "server"),
    ("fedlora", "head", ""),
])  # fmt: skip
def test_memory_counts_what_devices_keep_for_themselves(method, kind, labels):
    """In this process every device's; at the server where it has them; a device's own are in what it trains."""
    found = []
    for personal in ("none", kind):
        backbone, model, examples = with_head()
        learn = replace(LEARN, method=method, personal=personal)
        if method == "fedlora":
            settings = FleetSettings(devices=len(SIZES))
            fleet = Federated(model, examples, parts_of(SIZES), settings=settings, learn=learn, seed=SEED)
        else:
            fleet = local_fleet(backbone, model, examples, parts_of(SIZES), learn=learn, labels=labels)
        shape = read(backbone.model.config.to_dict(), classes=CLASSES)
        found.append(fleet.memory(step_of(shape, Training(batch=4, rank=2, classes=CLASSES), "tiny")))
    plain, mine = found
    kept = len(SIZES) * sum(tensor.nbytes for tensor in fleet.personal.start.values())
    assert kept > 0 and mine.device == plain.device
    assert mine.process == replace(plain.process, kept=plain.process.kept + kept)
    assert mine.server.kept - plain.server.kept == kept * (kind == "head" and labels == "server")
