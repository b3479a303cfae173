"""Chunks of a step: what is learnt does not depend on them, and no pass is larger than it may be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sflam.cost.memory import PASS_GB, rows_of_pass, server_activations, with_batch
from sflam.cost.passes import passes
from sflam.learn.chunks import PassBudget
from sflam.learn.device import Devices
from sflam.learn.fit import built_step
from sflam.learn.frames import Frame
from sflam.learn.server import Trunk
from sflam.model.split import split
from tests.learn.builders import LEARN, adapted, parts_of
from tests.tiny import largest_difference

CUTS = [1, 0, 2, 1]
ROWS = [4, 2, 5, 1]


class Rows(PassBudget):
    """A budget of some rows, whatever they are."""

    def __init__(self, rows):
        self._rows = lambda cut, tokens: rows


def valid(batch):
    """Return [B,T], 1 on tokens that are no padding."""
    tokens = torch.ones(next(iter(batch.inputs.values())).shape[:2]).double()
    if batch.lengths is None:
        return tokens[:, :1]
    return tokens * (torch.arange(tokens.shape[1]) < batch.lengths[:, None])


def trained(
    kind, labels, rows, most, *, shared=False, update="batched", steps=2, dropout=0.0, checkpointing=False
):
    """Return losses, gradients that came back and trained numbers after some steps, and the largest pass."""
    backbone, model, examples = adapted(kind, dropout=dropout) if dropout else adapted(kind)
    # Adam makes large differences of small ones, and a language model's loss is in float32.
    optimizer = "sgd" if kind == "gpt2-lm" else "adamw"
    learn = replace(LEARN, optimizer=optimizer, server_update=update, clip=0.1, weight_decay=0.1)
    device, server = split(backbone, model, CUTS, shared=shared, labels=labels)
    server.checkpointing = checkpointing
    devices = Devices(device, CUTS, learn)
    trunk = Trunk(server, backbone.task, learn, shared=shared)
    trunk.budget = Rows(most) if most else None
    seen = []
    server.register_forward_hook(lambda _, given, out: seen.append(len(out)))
    batches = {k: examples.take(part) for k, part in enumerate(parts_of(rows))}
    found = []
    for step in range(steps):
        seeds = dict.fromkeys(batches, step)
        hidden = devices.forward(batches, seeds)
        frames = [Frame(k, CUTS[k], hidden[k], b.lengths, b.labels) for k, b in batches.items()]
        if labels == "server":
            answers = trunk.step([frames[2], frames[0], frames[3], frames[1]], step)
            assert [answer.device for answer in answers] == [2, 0, 3, 1]
            found += [
                torch.tensor(answer.loss, dtype=torch.float64)
                for answer in sorted(answers, key=lambda a: a.device)
            ]
            back = {answer.device: answer.gradient for answer in answers}
        else:
            last = trunk.forward(frames, step)
            heads = devices.finish(backbone.task, batches, last, seeds)
            found += [last[k] * valid(b)[..., None] for k, b in batches.items()]
            back = trunk.backward({k: gradient for k, (_, gradient) in heads.items()})
        assert back[1] is None, "below cut 0 nothing is trained"
        assert all(back[k].shape == hidden[k].shape for k in (0, 2, 3))
        found += [back[k] for k in (0, 2, 3)]
        devices.backward({k: g for k, g in back.items() if g is not None}, batches)
    return [*found, server.stack.values.clone(), device.stack.values.clone()], max(seen)


@pytest.mark.parametrize("most", [1, 2, 3])
@pytest.mark.parametrize(
    ("kind", "labels", "options"),
    [
        ("vit", "server", {}),
        ("bert", "server", {}),
        ("gpt2-lm", "server", {}),
        ("vit", "device", {}),
        ("gpt2-lm", "device", {}),
        ("bert", "server", {"shared": True}),
        ("gpt2-lm", "server", {"shared": True, "update": "mixed"}),
        ("bert", "device", {"shared": True}),
    ],
)
def test_what_is_learnt_does_not_depend_on_the_chunks(kind, labels, options, most):
    """Rows of unlike devices, cuts and lengths; clipping and one step after all chunks."""
    chunked, largest = trained(kind, labels, ROWS, most, **options)
    assert largest <= most
    whole, every = trained(kind, labels, ROWS, 0, **options)
    assert every > most or options.get("update") == "mixed"
    for one, other in zip(chunked, whole, strict=True):
        assert largest_difference(one, other) < (1e-6 if kind == "gpt2-lm" else 1e-9)


@pytest.mark.parametrize(
    ("kind", "labels"), [("vit", "server"), ("bert", "server"), ("gpt2", "device"), ("distilbert", "server")]
)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_dropout_is_drawn_row_by_row(kind, labels, checkpointing):
    """Two ways to cut a step into chunks have the same masks."""
    options = {"dropout": 0.3, "checkpointing": checkpointing}
    one, _ = trained(kind, labels, ROWS, 1, **options)
    other, _ = trained(kind, labels, ROWS, 3, **options)
    for a, b in zip(one, other, strict=True):
        assert largest_difference(a, b) < 1e-9
    dry, _ = trained(kind, labels, ROWS, 3)
    assert largest_difference(dry[0], other[0]) > 1e-3


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 17)), min_size=1, max_size=12),
)
def test_every_row_is_in_one_pass_and_no_pass_takes_more_than_it_may(devices):
    counts, most = zip(*devices, strict=True)
    found = passes(counts, most)
    for index, count in enumerate(counts):
        rows = np.concatenate([own[index] for own in found if index in own])
        assert sorted(rows.tolist()) == list(range(count))
        assert sum(index in own for own in found) == -(-count // most[index])
    for own in found:
        assert sum(len(rows) / most[index] for index, rows in own.items()) < 1 + 1e-6


@pytest.mark.parametrize("labels_home", [False, True])
def test_the_memory_counted_is_that_of_the_largest_pass(labels_home):
    backbone, _, _ = adapted("vit")
    step = with_batch(built_step(backbone, 17, LEARN, home=labels_home), 8)
    alone, every = server_activations(step, [1]), server_activations(step, [1] * 6)
    assert every == 6 * alone, "one pass takes what is small"

    def limited(rows):
        gb = alone * rows / 8 / 1e9
        return replace(step, training=replace(step.training, memory_gb=gb * 1.0001))

    frames = 2 * 6 * 8 * 17 * step.shape.hidden * 8
    assert rows_of_pass(limited(16), 1) == 16
    assert server_activations(limited(16), [1] * 6) == 2 * alone + frames
    assert server_activations(limited(15), [1] * 6) == alone + frames, "devices stay whole where they fit"
    assert server_activations(limited(5), [1] * 6) == alone // 2 + frames, "or are cut into even parts"
    assert rows_of_pass(replace(step, training=replace(step.training, memory_gb=1e-9)), 1) == 1
    assert rows_of_pass(step, 1) == int(PASS_GB * 1e9) // (alone // 8)
