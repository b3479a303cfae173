"""Adapters in some blocks alone: the halves together are the whole model, wherever it is cut."""

from __future__ import annotations

import pytest

from sflam.errors import ModelError
from sflam.model.adapters import attach, state_of
from sflam.model.lora import Rows
from sflam.model.settings import ModelSettings
from sflam.model.split import split
from tests.model.test_split import gradients, perturb_adapters, run_split, run_whole
from tests.tiny import DEPTH, batch, is_lm, largest_difference, tiny


@pytest.mark.parametrize("tuned", [1, 2, -1, -2])
@pytest.mark.parametrize("kind", ["vit", "bert", "gpt2-lm", "llama-lm"])
def test_split_equals_whole_with_adapters_in_some_blocks(kind, tuned):
    backbone = tiny(kind)
    model = attach(backbone, ModelSettings(rank=2, tuned=tuned))
    perturb_adapters(model)
    held = {name for name in state_of(model) if "lora_" in name}
    tolerance = 1e-6 if is_lm(kind) else 1e-9
    for cut in range(DEPTH + 1):
        device, server = split(backbone, model.train(), [cut])
        assert {
            block
            for segment in (device, server)
            for n in segment.names()
            if (block := segment.block_of(n)) is not None
        } == set(device.tuned)
        assert len(device.tuned) == abs(tuned)
        one, rows = batch(kind), Rows((0,), (5,))
        _, _, losses = run_split(device, server, one, cut, rows)
        _, loss = run_whole(backbone, model, one, cut)
        assert largest_difference(losses[0].double(), loss.double()) < tolerance
        names = [name for segment in (device, server) for name in segment.names()]
        assert held <= set(names) and len(names) == len(set(names)) == len(state_of(model))
        for segment in (device, server):
            expected = gradients(model, segment.names())
            for name in segment.names():
                found = segment.stack.gradient(0)[name]
                assert largest_difference(found, expected[name]) < tolerance, (cut, name)


def test_more_blocks_than_there_are_is_refused():
    with pytest.raises(ModelError, match=f"4 tuned blocks are more than model .* has, {DEPTH}"):
        attach(tiny("vit"), ModelSettings(rank=2, tuned=DEPTH + 1))
