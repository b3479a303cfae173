"""Split == central: a shared trunk, global sampling, and one device half are central training on the same batches.

The oracle is the unmodified Hugging Face class with peft's adapters, one optimiser, and the union of the devices' rows
of every step as its batch.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from sflam.learn.drawing import drawn_together
from sflam.learn.settings import LearnSettings
from sflam.learn.settings.schedule import Moment, rate
from sflam.model.adapters import PREFIX, state_of
from sflam.model.dummy_inputs import with_mask
from tests.learn.builders import adapted, assert_equal_states, local_fleet, parts_of, run
from tests.tiny import EVERY_KIND, KINDS

LEARN = LearnSettings(
    method="sfl-v2",
    server_update="batched",
    rounds=2,
    batch=3,
    lr=1e-2,
    clip=0.0,
    weight_decay=0.01,
    state="keep",
    device="cpu",
)
SIZES = [25, 2, 13, 7]


def central(model, backbone, examples, parts, learn, seed, *, cut, frozen):
    """Train the whole model on the union of each step's rows; return the adapters and the losses of every step."""
    model = copy.deepcopy(model).train()
    path = f"{PREFIX}{backbone.family.path}."
    for name, parameter in model.named_parameters():
        if frozen and name.startswith(path) and int(name[len(path) :].split(".")[0]) < cut:
            parameter.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    kind = torch.optim.SGD if learn.optimizer == "sgd" else torch.optim.AdamW
    optimizer = kind(trained, lr=learn.practice.lr, weight_decay=learn.weight_decay)
    sizes = []
    for number in range(learn.rounds):
        batches = drawn_together(learn, dict(enumerate(parts)), seed, number)
        steps = list(zip(*batches.values(), strict=True))
        for step, rows in enumerate(steps):
            for group in optimizer.param_groups:
                group["lr"] = rate(learn, Moment(number, step, len(steps)))
            batch = examples.take(np.concatenate(rows))
            sizes.append(len(batch))
            loss = model(**with_mask(batch.inputs, batch.lengths), labels=batch.labels).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return state_of(model), sizes


@pytest.fixture(autouse=True)
def losses_in_float64(monkeypatch):
    """Hugging Face casts the logits of a language model to float32, and Adam makes that rounding visible."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("half", "cut"), [("averaged", 1), ("averaged", 2), ("frozen", 2), ("trained", 0)])
@pytest.mark.parametrize("local_steps", [0, 4])
def test_split_is_central_training(kind, half, cut, local_steps):
    backbone, model, examples = adapted(kind)
    parts = parts_of(SIZES)
    learn = replace(LEARN, device_half=half, local_steps=local_steps)
    wanted, sizes = central(model, backbone, examples, parts, learn, 3, cut=cut, frozen=half == "frozen")
    assert max(sizes) == len(parts) * learn.batch
    fleet = local_fleet(backbone, model, examples, parts, cut=cut, learn=learn, sampling="global")
    records, state = run(fleet, state_of(model), learn.rounds)
    assert_equal_states(state, wanted)
    assert sum(record.samples for record in records) == sum(sizes)


@pytest.mark.parametrize("half", ["averaged", "frozen"])
@pytest.mark.parametrize("local_steps", [0, 4])
def test_split_is_central_training_under_a_schedule(half, local_steps):
    backbone, model, examples = adapted("vit")
    parts = parts_of(SIZES)
    falling = {"schedule": "cosine", "warmup": 0.3, "decay": 0.5}
    learn = replace(LEARN, device_half=half, local_steps=local_steps, **falling)
    wanted, _ = central(model, backbone, examples, parts, learn, 3, cut=2, frozen=half == "frozen")
    fleet = local_fleet(backbone, model, examples, parts, cut=2, learn=learn, sampling="global")
    assert_equal_states(run(fleet, state_of(model), learn.rounds)[1], wanted)
    constant = replace(learn, schedule="constant", warmup=0.0, decay=1.0)
    other, _ = central(model, backbone, examples, parts, constant, 3, cut=2, frozen=half == "frozen")
    with pytest.raises(AssertionError):
        assert_equal_states(other, wanted, 1e-3)


@pytest.mark.parametrize("kind", sorted(set(EVERY_KIND) - set(KINDS)))
def test_split_is_central_training_in_every_family(kind):
    """With SGD, as some families compute their norms in float32, which Adam would make visible."""
    backbone, model, examples = adapted(kind)
    parts = parts_of(SIZES)
    learn = replace(LEARN, device_half="averaged", local_steps=2, optimizer="sgd")
    wanted, _ = central(model, backbone, examples, parts, learn, 3, cut=1, frozen=False)
    fleet = local_fleet(backbone, model, examples, parts, cut=1, learn=learn, sampling="global")
    _, state = run(fleet, state_of(model), learn.rounds)
    rounded = kind.partition("-")[0] in ("llama", "mistral", "qwen2", "qwen3")  # root mean squares in float32
    assert_equal_states(state, wanted, 1e-7 if rounded else 1e-9)


def test_without_one_device_half_it_is_not():
    """The comparison can fail: halves averaged once a round are not central training."""
    backbone, model, examples = adapted("vit")
    parts = parts_of(SIZES)
    wanted, _ = central(model, backbone, examples, parts, LEARN, 3, cut=1, frozen=False)
    fleet = local_fleet(backbone, model, examples, parts, cut=1, learn=LEARN, sampling="global")
    _, state = run(fleet, state_of(model), LEARN.rounds)
    with pytest.raises(AssertionError):
        assert_equal_states(state, wanted, 1e-4)


@pytest.mark.parametrize("kind", ["bert", "gpt2-lm"])
def test_labels_at_home_are_central_training_too(kind):
    backbone, model, examples = adapted(kind)
    parts = parts_of(SIZES)
    learn = replace(LEARN, device_half="averaged")
    wanted, _ = central(model, backbone, examples, parts, learn, 3, cut=1, frozen=False)
    fleet = local_fleet(
        backbone, model, examples, parts, cut=1, learn=learn, sampling="global", labels="device"
    )
    _, state = run(fleet, state_of(model), learn.rounds)
    assert_equal_states(state, wanted)


def test_averaging_in_every_step_is_charged():
    backbone, model, examples = adapted("vit")
    parts = parts_of([4, 4])
    learn = replace(LEARN, device_half="averaged", local_steps=2)
    with_it, _ = run(local_fleet(backbone, model, examples, parts, learn=learn), state_of(model), 1)
    without, _ = run(
        local_fleet(backbone, model, examples, parts, learn=replace(learn, device_half="trained")),
        state_of(model),
        1,
    )
    adapters = without[0].adapter_bytes_up // 2
    assert with_it[0].bytes_up - without[0].bytes_up == 2 * 2 * adapters
    assert with_it[0].bytes_down - without[0].bytes_down == 2 * 2 * adapters
