"""The lean half on graphs written by hand: activations, losses and steps are torch's, in whatever groups rows run."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from sflam.device.engines import Engines
from sflam.device.half import Grouping, LeanHalf
from sflam.device.weights import Weights
from sflam.learn.settings import LearnSettings
from sflam.link.half import LocalStep
from tests.device import hand_made

CUT = 3
LEARN = LearnSettings(lr=0.05, optimizer="adamw", weight_decay=0.1, clip=0.5)
ROWS = np.array([4, 0, 11, 7, 2])


class Out:
    """Collects what is written."""

    def __init__(self):
        self.pieces = []

    def write(self, tokens):
        self.pieces.append(tokens.copy())

    @property
    def all(self):
        return np.concatenate(self.pieces)


class In:
    """Gives tokens, which the reader may write on."""

    def __init__(self, tokens):
        self.left = tokens

    def read(self, count):
        found, self.left = self.left[:count].copy(), self.left[count:]
        assert len(found) == count
        return found


OPENED = []


@pytest.fixture(autouse=True)
def closed():
    """Close the files of the tensors."""
    yield
    while OPENED:
        OPENED.pop().close()


def weights_of(folder, keep=False):
    OPENED.append(Weights(folder / "x.safetensors", keep=keep))
    return OPENED[-1]


def made(folder, text, *, cut=CUT, grouping=Grouping(), learn=LEARN, keep=False, **more):  # noqa: B008
    """Return a half at random trained values, and its frozen tensors."""
    tensors = hand_made.write_tensors(folder / "x.safetensors", cut)
    own = hand_made.samples(text)
    half = LeanHalf(
        Engines(hand_made.bundle(text, cut, **more)), weights_of(folder, keep), own, learn, grouping
    )
    half.write(np.random.default_rng(1).normal(size=half.trained))
    half.begin(half.read())
    return half, tensors


def step_of(number=0, rate=0.05):
    return LocalStep(0, number, 7 + number, 8 + number, rate)


def named(half, leaf):
    """Return the trained tensors as views of a torch leaf [P]."""
    found, end = {}, 0
    for name, shape in half.bundle.trained.items():
        found[name] = leaf[end : end + int(np.prod(shape))].view(shape)
        end += int(np.prod(shape))
    return found


def close(a, b, tolerance=1e-12):
    assert np.abs(a - b).max() <= tolerance * np.abs(b).max(), np.abs(a - b).max()


GROUPS = [Grouping(rows, keep) for rows, keep in itertools.product((1, 2, 5), (False, True))]


@pytest.mark.parametrize("grouping", GROUPS, ids=str)
@pytest.mark.parametrize("text", [False, True], ids=["images", "text"])
def test_steps_are_torchs(tmp_path, text, grouping):
    half, tensors = made(
        tmp_path, text, grouping=replace(grouping, moments=tmp_path / "m"), keep=grouping.keep_inputs
    )
    leaf = torch.from_numpy(half.read()).requires_grad_()
    theirs = torch.optim.AdamW([leaf], lr=0.05, weight_decay=0.1)
    for number in range(5):
        taken, out = half.take(ROWS), Out()
        half.forward(step_of(number), out)
        hidden = torch.cat(hand_made.torch_hidden(half.samples, tensors, named(half, leaf), ROWS, text))
        assert taken.rows == len(ROWS) and taken.tokens == len(hidden)
        close(out.all, hidden.detach().numpy())
        gradient = np.random.default_rng(number).normal(size=hidden.shape)
        half.backward(step_of(number), In(gradient))
        theirs.zero_grad()
        hidden.backward(torch.from_numpy(gradient))
        torch.nn.utils.clip_grad_norm_([leaf], LEARN.clip)
        theirs.step()
        close(half.read(), leaf.detach().numpy(), 1e-10)
    assert not np.array_equal(half.read(), half.start if half.start is not None else 0)


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("grouping", [GROUPS[0], GROUPS[-1]], ids=str)
@pytest.mark.parametrize("text", [False, True], ids=["images", "text"])
def test_labels_at_home(tmp_path, text, grouping, answered):
    half, tensors = made(tmp_path, text, grouping=grouping, labels_at_home=True)
    assert half.has_head and half.take(ROWS).labels is None
    leaf = torch.from_numpy(half.read()).requires_grad_()
    theirs = torch.optim.AdamW([leaf], lr=0.05, weight_decay=0.1)
    for number in range(3):
        half.take(ROWS)
        out = Out()
        half.forward(step_of(number), out)
        rows = hand_made.torch_hidden(half.samples, tensors, named(half, leaf), ROWS, text)
        # what a server might do: half of it
        last = [(row.detach() * 0.5).requires_grad_() for row in rows]
        back = Out()
        loss = half.finish(step_of(number), In(np.concatenate([row.detach().numpy() for row in last])), back)
        logits = torch.stack([row.mean(0) for row in last]) @ named(half, leaf)["c"].T
        wanted = torch.nn.functional.cross_entropy(
            logits, torch.from_numpy(half.samples.dataset.labels[ROWS])
        )
        theirs.zero_grad()
        wanted.backward()
        close(back.all, np.concatenate([row.grad.numpy() for row in last]))
        assert loss == pytest.approx(wanted.item(), rel=1e-12)
        half.backward(step_of(number), In(back.all * 0.5) if answered else None)
        if answered:
            torch.autograd.backward(rows, [row.grad * 0.5 for row in last])
        torch.nn.utils.clip_grad_norm_([leaf], LEARN.clip)
        theirs.step()
        close(half.read(), leaf.detach().numpy(), 1e-10)


@pytest.mark.parametrize("text", [False, True], ids=["images", "text"])
def test_dropout_is_the_same_in_any_groups_and_again(tmp_path, text):
    ends = []
    for number, grouping in enumerate(GROUPS):
        (tmp_path / str(number)).mkdir()
        half, _ = made(tmp_path / str(number), text, grouping=grouping, dropout=0.5)
        outs = []
        for _ in range(2):  # broken off after the forward, and made again
            half.take(ROWS)
            out = Out()
            half.forward(step_of(), out)
            outs.append(out.all)
        assert np.array_equal(*outs)
        half.backward(step_of(), In(np.ones_like(out.all)))
        ends.append((out.all, half.read()))
        other = Out()
        half.take(ROWS)
        half.forward(step_of(1), other)
        assert np.abs(other.all - out.all).max() > 0.1
    for hidden, values in ends[1:]:
        close(hidden, ends[0][0])
        close(values, ends[0][1], 1e-10)


def test_a_frozen_half_without_dropout_draws_none(tmp_path):
    hidden = []
    for dropout, engines in ((0.0, {}), (0.5, {"dropout": False})):
        hand_made.write_tensors(tmp_path / "x.safetensors", CUT)
        bundle = hand_made.bundle(False, CUT, dropout=dropout)
        half = LeanHalf(
            Engines(bundle, **engines), weights_of(tmp_path), hand_made.samples(False), LEARN, Grouping()
        )
        half.write(np.random.default_rng(1).normal(size=half.trained))
        half.take(ROWS)
        out = Out()
        half.forward(step_of(), out)
        hidden.append(out.all)
    close(*hidden)


def test_nothing_moves_before_the_backward_or_without_a_gradient(tmp_path):
    half, _ = made(tmp_path, False)
    before = half.read()
    half.take(ROWS)
    half.forward(step_of(), Out())
    assert np.array_equal(half.read(), before)
    half.backward(step_of(), None)
    assert np.array_equal(half.read(), before) and half.optimizer() == {}


def test_fedprox_pulls_to_where_the_round_began(tmp_path):
    learn = replace(LEARN, local="fedprox", prox=0.3, optimizer="sgd", clip=0.0, weight_decay=0.0)
    half, _ = made(tmp_path, False, learn=learn)
    plain, _ = made(tmp_path, False, learn=replace(learn, local="plain"))
    start = half.read()
    for number in range(2):
        before = half.read()
        plain.write(before)
        for one in (half, plain):
            one.take(ROWS)
            out = Out()
            one.forward(step_of(number), out)
            one.backward(step_of(number), In(np.ones_like(out.all)))
        close(half.read(), plain.read() - 0.05 * 0.3 * (before - start))
    assert "start" in half.state() and "start" not in plain.state()


@pytest.mark.parametrize("local", ["plain", "fedprox"])
def test_a_half_goes_on_from_its_state(tmp_path, local):
    learn = replace(LEARN, local=local)

    def run(half, steps):
        for number in steps:
            half.take(ROWS)
            out = Out()
            half.forward(step_of(number), out)
            half.backward(step_of(number), In(np.ones_like(out.all)))

    first, _ = made(tmp_path, True, learn=learn)
    run(first, range(2))
    state = {name: value.copy() for name, value in first.state().items()}
    optimizer = first.optimizer()
    second, _ = made(tmp_path, True, learn=learn)
    second.write(np.zeros(second.trained))
    assert second.restore(state)
    second.put_optimizer(optimizer)
    run(first, range(2, 4))
    run(second, range(2, 4))
    assert np.array_equal(first.read(), second.read())
    assert not second.restore({"values": np.zeros(3)}) and not second.restore({})


def test_lengths_and_labels_are_announced(tmp_path):
    half, _ = made(tmp_path, True)
    taken = half.take(ROWS)
    counts = half.samples.dataset.lengths[ROWS]
    assert taken.lengths.tolist() == counts.tolist() and taken.tokens == counts.sum()
    assert taken.labels.dtype == np.int32 and taken.labels.tolist() == (ROWS % 3).tolist()
    assert half.take(ROWS[:1]).lengths is None
    images, _ = made(tmp_path, False)
    assert images.take(ROWS).lengths is None and images.take(ROWS).tokens == len(ROWS) * hand_made.PATCHES
