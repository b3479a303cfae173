"""The server's step, and the stacked optimiser behind it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import chain

import pytest
import torch

from sflam.learn.device import Devices
from sflam.learn.frames import Frame
from sflam.learn.optimizers import optimizer
from sflam.learn.server import Trunk
from sflam.learn.settings import LearnSettings
from sflam.model.adapters import state_of
from sflam.model.split import split
from sflam.model.stack import AdapterStack
from tests.learn.builders import LEARN, adapted, assert_equal_states, local_fleet, parts_of, run
from tests.tiny import largest_difference

SHAPES = {"a": torch.ones(2, 3), "b": torch.zeros(4)}


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_the_stacked_optimizer_is_separate_ones(name):
    """Three devices that skip different steps, against three optimisers of their own."""
    settings = LearnSettings(optimizer=name, lr=0.1, weight_decay=0.05, momentum=0.9)
    stack = AdapterStack(SHAPES, 3)
    together = optimizer(settings, stack.rows)
    alone = [torch.cat([t.flatten() for t in SHAPES.values()]).requires_grad_() for _ in range(3)]
    separate = [optimizer(settings, [row]) for row in alone]
    draw = torch.Generator().manual_seed(0)
    for active in ([0, 1, 2], [1], [0, 2], [2], [0, 1]):
        stack.begin(active)
        stack.grads.copy_(torch.randn(stack.grads.shape, generator=draw))
        before = stack.values.clone()
        stack.hand_out(clip=1.0)
        together.step()
        for k in range(3):
            if k in active:
                alone[k].grad = stack.grads[k].clone()
                separate[k].step()
            else:
                assert torch.equal(stack.values[k], before[k]), "a device without a step does not move"
        assert torch.equal(stack.values, torch.stack([row.detach() for row in alone]))


def test_clipping_is_per_device():
    stack = AdapterStack(SHAPES, 3)
    stack.grads.copy_(torch.tensor([0.01, 1.0, 100.0])[:, None].expand(3, 10))
    expected = []
    for k in range(3):
        parameter = torch.nn.Parameter(torch.zeros(10))
        parameter.grad = stack.grads[k].clone()
        torch.nn.utils.clip_grad_norm_([parameter], 1.0)
        expected.append(parameter.grad)
    stack.hand_out(clip=1.0)
    assert torch.allclose(stack.grads, torch.stack(expected), rtol=1e-6)


def frames_of(backbone, model, examples, cuts, parts):
    device, _ = split(backbone, model, cuts)
    devices = Devices(device, cuts, LEARN)
    batches = {k: examples.take(part) for k, part in enumerate(parts)}
    hidden = devices.forward(batches, dict.fromkeys(batches, 0))
    return [Frame(k, cuts[k], hidden[k], batch.lengths, batch.labels) for k, batch in batches.items()]


def trunk_of(backbone, model, cuts, learn=LEARN, shared=False):
    return Trunk(split(backbone, model, cuts, shared=shared)[1], backbone.task, learn, shared=shared)


@pytest.mark.parametrize("kind", ["vit", "bert", "gpt2"])
def test_one_step_for_all_is_a_step_for_each(kind):
    """Ragged rows, different cuts and lengths: the answers and the trained rows are those of lone steps."""
    backbone, model, examples = adapted(kind)
    cuts = [1, 3, 0, 1]
    frames = frames_of(backbone, model, examples, cuts, parts_of([4, 2, 3, 1]))
    together, alone = trunk_of(backbone, model, cuts), trunk_of(backbone, model, cuts)
    answers = together.step([frames[2], frames[0], frames[3]], 0)
    assert [answer.device for answer in answers] == [2, 0, 3], "answered in the order given"
    for answer, frame in zip(answers, [frames[2], frames[0], frames[3]], strict=True):
        (lone,) = alone.step([frame], 0)
        assert answer.loss == pytest.approx(lone.loss, rel=1e-12)
        if frame.cut == 0:
            assert answer.gradient is None, "below cut 0 nothing is trained"
        else:
            assert largest_difference(answer.gradient, lone.gradient) < 1e-9
            assert answer.gradient.shape == frame.hidden.shape
    assert largest_difference(together.segment.stack.values, alone.segment.stack.values) < 1e-9
    start = trunk_of(backbone, model, cuts).segment.stack.values
    assert torch.equal(together.segment.stack.values[1], start[1]), "device 1 had no step"
    assert not torch.equal(together.segment.stack.values[0], start[0])


def test_momentum_survives_steps():
    """A new optimiser for every mini-batch would move both steps by the learning rate alone."""
    backbone, model, examples = adapted("vit")
    learn = replace(LEARN, optimizer="sgd", lr=0.01, momentum=0.9, clip=0.0, weight_decay=0.0)
    trunk = trunk_of(backbone, model, [1], learn)
    (frame,) = frames_of(backbone, model, examples, [1], parts_of([4]))
    values = trunk.segment.stack.values
    moves = []
    for _ in range(2):
        before = values.clone()
        trunk.step([frame], 0)
        moves.append((values - before, trunk.segment.stack.grads.clone()))
    (first, gradient_1), (second, gradient_2) = moves
    assert largest_difference(first, -0.01 * gradient_1) < 1e-9
    assert largest_difference(second, -0.01 * (0.9 * gradient_1 + gradient_2)) < 1e-9


def test_state_across_rounds_is_reset_or_kept():
    for state, survives in (("reset", False), ("keep", True)):
        backbone, model, examples = adapted("vit")
        fleet = local_fleet(backbone, model, examples, parts_of([4, 4]), learn=replace(LEARN, state=state))
        run(fleet, state_of(model), 1)
        assert len(fleet.devices.optimizer.state) == len(fleet.servers.trunks[0].optimizer.state) == 2
        fleet.download(1, [0, 1], state_of(model))
        assert (
            bool(fleet.devices.optimizer.state) is bool(fleet.servers.trunks[0].optimizer.state) is survives
        )


def test_sequential_sfl_v2_is_one_step_after_the_other():
    """The second device is answered by a trunk the first has already moved."""
    backbone, model, examples = adapted("vit")
    learn = replace(LEARN, method="sfl-v2", server_update="sequential")
    frames = frames_of(backbone, model, examples, [1, 1], parts_of([4, 3]))
    together = trunk_of(backbone, model, [1, 1], learn, shared=True)
    alone = trunk_of(backbone, model, [1, 1], learn, shared=True)
    answers = together.step(frames, 0)
    lone = [alone.step([frame], 0)[0] for frame in frames]
    assert [a.loss for a in answers] == [a.loss for a in lone]
    assert torch.equal(together.segment.stack.values, alone.segment.stack.values)
    assert together.segment.stack.copies == 1


def test_batched_sfl_v2_takes_one_step_on_the_summed_gradients():
    backbone, model, examples = adapted("vit")
    learn = replace(
        LEARN, method="sfl-v2", server_update="batched", optimizer="sgd", lr=0.1, clip=0.0, weight_decay=0.0
    )
    frames = frames_of(backbone, model, examples, [1, 1], parts_of([4, 3]))
    shared = trunk_of(backbone, model, [1, 1], learn, shared=True)
    start = shared.segment.stack.values.clone()
    shared.step(frames, 0)
    gradients = []
    for frame in frames:
        own = trunk_of(backbone, model, [1, 1], learn, shared=True)
        own.step([frame], 0)
        gradients.append(own.segment.stack.grads.clone())
    assert largest_difference(shared.segment.stack.values, start - 0.1 * sum(gradients)) < 1e-9


@pytest.mark.parametrize("update", ["sequential", "batched"])
def test_sfl_v2_trains_one_server_copy_and_averages_the_devices(update):
    backbone, model, examples = adapted("vit")
    learn = replace(LEARN, method="sfl-v2", server_update=update)
    fleet = local_fleet(backbone, model, examples, parts_of([8, 4]), cut=2, learn=learn)
    start = state_of(model)
    _, state = run(fleet, start, 1)
    served = fleet.servers.trunks[0].segment.stack.read(0)
    assert_equal_states({name: state[name] for name in served}, served)
    halves = [fleet.devices.segment.stack.read(k) for k in range(2)]
    mean = {name: (halves[0][name] * 8 + halves[1][name] * 4) / 12 for name in halves[0]}
    assert_equal_states({name: state[name] for name in mean}, mean)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("labels", ["server", "device"])
def test_rows_taken_out_of_the_stack_learn_what_dense_ones_do(monkeypatch, optimizer, labels):
    """Random participation: a pass of some rows gives to the bit what one over all rows of the stack gives."""
    backbone, model, examples = adapted("vit")
    cuts = [1, 0, 2, 1, 0, 1, 2, 1, 1]
    learn = replace(LEARN, optimizer=optimizer, momentum=0.9, weight_decay=0.1, lr=0.01, clip=0.5)
    device, server = split(backbone, model, cuts, labels=labels)
    batches = {k: examples.take(part) for k, part in enumerate(parts_of([2, 3, 1, 2, 2, 1, 3, 2, 2]))}
    draw = torch.Generator().manual_seed(0)
    rounds = [torch.randperm(len(cuts), generator=draw)[: 1 + n % 5].tolist() for n in range(20)]
    start = [side.stack.values.clone() for side in (device, server)]

    def trained():
        for side, values in zip((device, server), start, strict=True):
            with torch.no_grad():
                side.stack.values.copy_(values)
        devices, trunk = Devices(device, cuts, learn), Trunk(server, backbone.task, learn)
        for active in rounds:
            before = [side.segment.stack.values.clone() for side in (devices, trunk)]
            own = {k: batches[k] for k in sorted(active)}
            hidden = devices.forward(own, dict.fromkeys(own, 0))
            frames = [Frame(k, cuts[k], hidden[k], b.lengths, b.labels) for k, b in own.items()]
            if labels == "server":
                back = {a.device: a.gradient for a in trunk.step(frames, 0)}
            else:
                last = trunk.forward(frames, 0)
                heads = devices.finish(backbone.task, own, last, dict.fromkeys(own, 0))
                back = trunk.backward({k: heads[k][1] for k in own})
            devices.backward({k: g for k, g in back.items() if g is not None}, own)
            absent = [k for k in range(len(cuts)) if k not in own]
            for side, values in zip((devices, trunk), before, strict=True):
                assert torch.equal(side.segment.stack.values[absent], values[absent])
        if optimizer == "adamw":
            counted = {int(row): int(state["step"]) for row, state in trunk.state().items()}
            assert counted == Counter(chain(*rounds)), "a row counts its own steps"
        return torch.cat([devices.segment.stack.values, trunk.segment.stack.values], 1)

    compact = trained()
    assert not torch.equal(compact, torch.cat(start, 1))
    monkeypatch.setattr(AdapterStack, "gather", lambda *_, **__: None)
    assert torch.equal(compact, trained())
