"""Blocks without adapters cost what they do: FLOP as torch counts them, no gradient below the first adapter."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sflam.cost.memory import device_memory, kept
from sflam.errors import ModelError
from sflam.model.adapters import attach
from sflam.model.lora import Rows
from sflam.model.settings import ModelSettings
from sflam.model.split import Arrival, split
from sflam.model.tuned import as_number, tuned_among, tuned_blocks
from tests.cost.test_measure import LONG, RANK, ROWS, TOKENS, kept_by, measured, step_in
from tests.tiny import DEPTH, batch, is_image, tiny

TUNED = (1, 2, -1, -2)


def halves(kind, cut, tuned, frozen_half):
    backbone = tiny(kind, dtype=torch.float64)
    backbone.model.set_attn_implementation("eager")
    model = attach(backbone, ModelSettings(rank=RANK, tuned=tuned)).train()
    return backbone, *split(backbone, model, [cut], frozen_half=frozen_half)


def counted(kind, cut, tuned, frozen_half):
    """Return what torch counts: device forward, backward, server forward, backward; and the device's half."""
    _, device, server = halves(kind, cut, tuned, frozen_half)
    one, rows = batch(kind, ROWS, TOKENS, full=True), Rows((0,), (ROWS,))
    forward, backward, serving, answering = (FlopCounterMode(display=False) for _ in range(4))
    with forward:
        hidden = device(one["inputs"], one["lengths"], cut, rows)
    assert hidden.requires_grad == device.answers(cut) == server.answers(cut)
    sent = hidden.detach().requires_grad_(hidden.requires_grad)
    with serving:
        logits = server([Arrival(cut, sent, rows)], one["lengths"])
    with answering:
        if logits.requires_grad:
            logits.sum().backward()
    with backward:
        if hidden.requires_grad:
            hidden.backward(sent.grad)
    return [each.get_total_flops() for each in (forward, backward, serving, answering)], device


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("tuned", TUNED)
@pytest.mark.parametrize("kind", ["vit", "bert", "gpt2-lm", "llama-lm"])
def test_flops_traffic_and_adapters_are_those_of_what_is_trained(kind, tuned, frozen, tmp_path):
    costs = measured(kind, tiny(kind), tmp_path, tuned=tuned, frozen_half=frozen)
    for cut in range(DEPTH + 1):
        found, device = counted(kind, cut, tuned, frozen)
        expected = (costs.device_forward, costs.device_backward, costs.server_forward, costs.server_backward)
        assert found == [int(per_cut[cut]) for per_cut in expected], cut
        assert costs.adapter_values[cut] == device.stack.size(device.names(cut))
        assert (costs.down_bits(cut, 8) > 0) == costs.returns(cut) == device.answers(cut)
        if not device.answers(cut):
            assert costs.device_backward[cut] == 0


@pytest.mark.parametrize("kind", ["vit", "bert"])
def test_all_blocks_are_what_no_number_says(kind, tmp_path):
    plain = measured(kind, tiny(kind), tmp_path)
    for tuned in (0, DEPTH, -DEPTH):
        assert measured(kind, tiny(kind), tmp_path, tuned=tuned) == plain


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("tuned", TUNED)
@pytest.mark.parametrize("kind", ["vit", "llama"])
def test_a_step_keeps_what_autograd_holds(kind, tuned, attention, tmp_path):
    """Blocks below the first adapter keep nothing; those above it without one keep less than those with."""
    backbone, held = kept_by(kind, attention=attention, cut=DEPTH, tuned=tuned)
    more = {"fused_attention": attention == "sdpa"} | ({} if is_image(kind) else {"tokens": LONG})
    step = step_in(tmp_path, kind, backbone, tuned=tuned, **more)
    found = kept(step, 0, DEPTH)
    assert 0.9 <= found / held <= 1.15, (found, held)  # the lowest block keeps no input of its first norm
    whole = step_in(tmp_path, kind, backbone, **more)
    assert found < kept(whole, 0, DEPTH)


def test_the_memory_of_a_device_falls_with_the_blocks_it_trains(tmp_path):
    backbone = tiny("vit")
    totals = [
        device_memory(step_in(tmp_path, "vit", backbone, tuned=tuned), 2).total for tuned in (0, 1, -2, -1)
    ]
    assert totals == sorted(totals, reverse=True) and len(set(totals)) == 4
    frozen = device_memory(step_in(tmp_path, "vit", backbone, tuned=-1), 2)
    assert frozen.trained == 0


@pytest.mark.parametrize("blocks", [1, 5])
def test_a_number_and_its_blocks_are_one(blocks):
    for tuned in range(-blocks, blocks + 1):
        found = tuned_blocks(tuned, blocks)
        assert tuned_blocks(as_number(found, blocks), blocks) == found
        assert [index in found for index in range(blocks)] == [
            tuned == 0 or (index < tuned if tuned > 0 else index >= blocks + tuned) for index in range(blocks)
        ]
        for first in range(blocks + 1):
            for last in range(first, blocks + 1):
                assert tuned_among(found, first, last) == sum(i in found for i in range(first, last))
    with pytest.raises(ModelError, match=f"model.tuned must be between -{blocks}"):
        tuned_blocks(blocks + 1, blocks, "m")
