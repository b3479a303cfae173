"""split == whole: the composition of the segments is the unmodified Hugging Face model."""

from __future__ import annotations

import pytest
import torch

from sflam.errors import ModelError
from sflam.model.adapters import attach, state_of
from sflam.model.lora import Rows
from sflam.model.loss import group_losses
from sflam.model.settings import ModelSettings
from sflam.model.split import Arrival, split
from tests.tiny import DEPTH, EVERY_KIND, batch, is_image, is_lm, largest_difference, tiny, whole_arguments

CUTS = range(DEPTH + 1)


def perturb_adapters(model):
    """B starts at zero, which would hide every gradient of A: make both factors real."""
    torch.manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)


def adapted(kind, dropout=0.0, lora_dropout=0.0):
    backbone = tiny(kind, dropout=dropout)
    model = attach(backbone, ModelSettings(rank=2, dropout=lora_dropout))
    perturb_adapters(model)
    return backbone, model.train()


def run_split(device, server, one, cut, rows, *, reseed=None):
    hidden = device(one["inputs"], one["lengths"], cut, rows)
    exchange = hidden.detach().requires_grad_()
    if reseed is not None:
        torch.manual_seed(reseed)
    logits = server([Arrival(cut, exchange, rows)], one["lengths"])
    losses = group_losses(server_task(server), logits, one["labels"], rows.counts)
    (gradient,) = server.stack.backward(losses.sum(), inputs=[exchange])
    if hidden.requires_grad:
        device.stack.backward(hidden, gradient)
    return hidden, gradient, losses


def server_task(server):
    return "causal-lm" if hasattr(server.parts, "lm_head") else "any-classification"


def run_whole(backbone, model, one, cut, *, reseed=None):
    """Run the Hugging Face class; return its activations at the cut, their gradient, and the loss."""
    from sflam.model.families import blocks_of

    blocks = blocks_of(backbone.model, backbone.family)
    seen = []

    def keep(hidden):
        if reseed is not None:
            torch.manual_seed(reseed)
        if hidden.requires_grad:
            hidden.retain_grad()
        seen.append(hidden)

    if cut < DEPTH:
        handle = blocks[cut].register_forward_pre_hook(lambda m, a: keep(a[0]))
    else:
        handle = blocks[-1].register_forward_hook(lambda m, a, out: keep(out))
    try:
        model.zero_grad()
        loss = model(**whole_arguments(one)).loss
        loss.backward()
    finally:
        handle.remove()
    return seen[0], loss


def gradients(model, names):
    own = {n.replace(".default", "").replace("modules_to_save.", ""): p for n, p in model.named_parameters()}
    return {name: own[name].grad for name in names}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_split_equals_whole(kind, cut, dropout):
    backbone, model = adapted(kind, dropout, lora_dropout=dropout)
    device, server = split(backbone, model, [cut])
    device.train(), server.train()
    one = batch(kind)
    rows = Rows((0,), (5,))
    torch.manual_seed(3)
    hidden, _, losses = run_split(device, server, one, cut, rows, reseed=11)
    torch.manual_seed(3)
    whole_hidden, loss = run_whole(backbone, model, one, cut, reseed=11)
    tolerance = 1e-6 if is_lm(kind) else 1e-9  # that loss is in float32 on both sides
    assert largest_difference(losses[0].double(), loss.double()) < tolerance
    valid = slice(None) if one["lengths"] is None else torch.arange(9)[None, :] < one["lengths"][:, None]
    assert largest_difference(hidden[valid], whole_hidden[valid]) < 1e-9
    checked = 0
    for segment in (device, server):
        expected = gradients(model, segment.names())
        for name in segment.names():
            assert largest_difference(segment.stack.gradient(0)[name], expected[name]) < tolerance, name
            checked += 1
    assert checked == len(state_of(model))


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_full_rows_equal_whole(kind):
    backbone, model = adapted(kind)
    device, server = split(backbone, model, [1])
    one = batch(kind, full=True)
    _, _, losses = run_split(device, server, one, 1, Rows((0,), (5,)))
    _, loss = run_whole(backbone, model, one, 1)
    assert largest_difference(losses[0].double(), loss.double()) < 1e-6


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_devices_with_different_cuts_share_one_pass(kind):
    """Three devices at cuts 2, 0, 3, ragged batches and lengths, each equal to its own whole model."""
    backbone, model = adapted(kind)
    cuts, counts = [2, 0, 3], [3, 5, 1]
    device, server = split(backbone, model, cuts)
    batches = [batch(kind, rows=n, tokens=t, seed=n) for n, t in zip(counts, [9, 6, 7], strict=True)]
    order = sorted(range(3), key=lambda k: cuts[k])
    width = max(next(iter(b["inputs"].values())).shape[1] for b in batches)
    arrivals, leaves = [], []
    for position, k in enumerate(order):
        one = batches[k]
        hidden = device(one["inputs"], one["lengths"], cuts[k], Rows((k,), (counts[k],)))
        leaf = hidden.detach().requires_grad_()
        leaves.append((hidden, leaf))
        seen = order[: position + 1]
        entering = leaf
        if not is_image(kind):
            entering = torch.nn.functional.pad(leaf, (0, 0, 0, width - leaf.shape[1]))
        arrivals.append(Arrival(cuts[k], entering, Rows.of(seen, [counts[j] for j in seen])))
    lengths = None if is_image(kind) else torch.cat([batches[k]["lengths"] for k in order])
    labels = torch.cat(
        [
            batches[k]["labels"]
            if not is_lm(kind)
            else torch.nn.functional.pad(
                batches[k]["labels"], (0, width - batches[k]["labels"].shape[1]), value=-100
            )
            for k in order
        ]
    )
    logits = server(arrivals, lengths)
    losses = group_losses(server_task(server), logits, labels, tuple(counts[k] for k in order))
    gradients_back = server.stack.backward(losses.sum(), inputs=[leaf for _, leaf in leaves])
    for (hidden, _), gradient in zip(leaves, gradients_back, strict=True):
        if hidden.requires_grad:
            device.stack.backward(hidden, gradient)
    tolerance = 1e-6 if is_lm(kind) else 1e-9
    for position, k in enumerate(order):
        _, loss = run_whole(backbone, model, batches[k], 0)
        assert largest_difference(losses[position].double(), loss.double()) < tolerance
        for segment in (device, server):
            names = segment.names(cuts[k])
            expected = gradients(model, names)
            for name in names:
                assert largest_difference(segment.stack.gradient(k)[name], expected[name]) < tolerance, (
                    k,
                    name,
                )


def test_a_cut_out_of_range_names_the_limit():
    backbone, model = adapted("vit")
    with pytest.raises(ModelError, match=r"cut 4 is out of range.*3 blocks"):
        split(backbone, model, [1, 4])


def test_the_device_holds_only_its_part():
    backbone, model = adapted("bert")
    device, server = split(backbone, model, [1])
    front = sum(p.numel() for p in backbone.model.bert.embeddings.parameters())
    block = sum(p.numel() for p in tiny("bert").model.bert.encoder.layer[0].parameters())
    assert sum(p.numel() for p in device.parameters()) == front + block
    assert not any("embeddings" in name for name, _ in server.named_parameters())
