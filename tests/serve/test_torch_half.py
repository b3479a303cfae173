"""The torch half as the loop wants it: steps that break off leave no trace, and its state goes through the file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sflam.link import state
from sflam.link.half import LocalStep
from sflam.model.split import DeviceSegment
from sflam.serve.torch_half import TorchHalf
from tests.learn.builders import LEARN, adapted, parts_of
from tests.tiny import WIDTH

SIZES = (9,)
SAMPLES = np.array([4, 0, 7])


class Tape:
    """Takes a message's tokens, and gives them back."""

    tokens = None

    def write(self, tokens):
        assert self.tokens is None, "torch writes all at once"
        self.tokens = tokens.clone()

    def read(self, count):
        assert count == len(self.tokens)
        return self.tokens.clone()


def half_of(kind, labels="server", **learn):
    backbone, _, examples = adapted(kind, dropout=0.2)
    segment = DeviceSegment(backbone, 1, 1, labels=labels)
    return TorchHalf(segment, 1, replace(LEARN, **learn), examples, parts_of(SIZES)[0])


def moment(step):
    return LocalStep(0, step, seed=10 + step, head_seed=20 + step, rate=0.05)


def stepped(half, step, broken=False):
    """Run a step whose server answers with the activations; return what went up."""
    taken, out, up = half.take(SAMPLES), Tape(), Tape()
    half.forward(moment(step), out)
    assert out.tokens.shape == (taken.tokens, half.dim) == (taken.tokens, WIDTH)
    sent = [out.tokens]
    if half.has_head:
        half.finish(moment(step), out, up)
        sent.append(up.tokens)
    if not broken:
        half.backward(moment(step), out)
    return sent


@pytest.mark.parametrize("kind", ["vit", "bert", "gpt2"])
@pytest.mark.parametrize("labels", ["server", "device"])
def test_a_step_that_breaks_off_leaves_no_trace(kind, labels):
    once, again = (half_of(kind, labels, optimizer="adam") for _ in range(2))
    again.write(once.read())
    for step in range(3):
        stepped(again, step, broken=True)
        wanted, found = stepped(once, step), stepped(again, step)
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
        assert np.array_equal(again.read(), once.read())


@pytest.mark.parametrize("learn", [{"optimizer": "adamw"}, {"optimizer": "sgd", "momentum": 0.9}])
@pytest.mark.parametrize("local", ["plain", "fedprox"])
def test_what_is_in_the_file_is_all_there_is(tmp_path, learn, local):
    before = half_of("bert", local=local, **learn)
    before.begin(before.read())
    stepped(before, 0)
    groups = {"half": before.state(), "optimizer": before.optimizer()}
    assert groups["optimizer"], "it remembers"
    arrays = {f"{group}/{name}": array for group, own in groups.items() for name, array in own.items()}
    state.save(tmp_path / "state", {}, arrays)
    _, found = state.load(tmp_path / "state")
    after = half_of("bert", local=local, **learn)
    assert after.restore({name[5:]: array for name, array in found.items() if name.startswith("half/")})
    after.put_optimizer({name[10:]: array for name, array in found.items() if name.startswith("optimizer/")})
    for step in (1, 2):
        stepped(before, step)
        stepped(after, step)
    assert np.array_equal(after.read(), before.read())


def test_a_fresh_optimizer_remembers_nothing():
    half = half_of("bert", optimizer="adam")
    assert half.optimizer() == {}
    stepped(half, 0)
    assert half.optimizer()
    half.put_optimizer({})
    assert half.optimizer() == {}


def test_the_state_of_another_model_changes_nothing():
    half = half_of("bert")
    before = half.read()
    assert not half.restore({"values": np.ones(3, np.float32)}) and not half.restore({})
    assert np.array_equal(half.read(), before)


def test_what_a_message_announces():
    images, texts, words = (half_of(kind).take(SAMPLES) for kind in ("vit", "bert", "gpt2"))
    assert images.lengths is None and images.tokens == 3 * 17 and len(images.labels) == 3
    assert texts.lengths.sum() == texts.tokens and len(texts.labels) == 3
    assert words.tokens == words.lengths.sum()
    assert half_of("bert", "device").take(SAMPLES).labels is None
