"""Tokens dropped at the cut: the whole model with the others behind it, their bytes alone, the same after a resume."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sflam.codec.guard import guard_of
from sflam.codec.settings import QuantSettings
from sflam.errors import ModelError
from sflam.learn.dropping import Dropping
from sflam.learn.evaluate import Score
from sflam.learn.exchange import Position
from sflam.learn.round import train
from sflam.model.adapters import state_of
from sflam.model.dummy_inputs import valid_tokens, with_mask
from sflam.model.families import blocks_of
from sflam.privacy.settings import PrivacySettings
from sflam.sizes import sent_tokens, step_body_bytes
from tests.learn.builders import (
    IDENTITY,
    LEARN,
    adapted,
    assert_equal_states,
    local_fleet,
    parts_of,
    run,
)
from tests.tiny import WIDTH, is_image, largest_difference

CUT = 1
KINDS = ("vit", "deit", "dinov2", "bert", "roberta", "distilbert", "gpt2")
SIZES = (9, 12)
HALF = PrivacySettings(drop_tokens=0.5)


def fleet_of(kind, privacy, *, cut=CUT, **options):
    backbone, model, examples = adapted(kind)
    guard = guard_of(privacy, 3)
    return local_fleet(backbone, model, examples, parts_of(SIZES), cut=cut, guard=guard, **options)


def plain_step(kind, batch, places, cut):
    """Return loss and gradients of the whole Hugging Face model, whose blocks from ``cut`` on see kept tokens alone.

    Of an image they are gathered before that block; of a text its blocks are given a mask that hides the others, and a
    head that reads one token then sees none of them.
    """
    backbone, model, _ = adapted(kind)
    blocks = blocks_of(backbone.model, backbone.family)
    if is_image(kind):
        at = places[:, :, None].expand(-1, -1, WIDTH)

        def gathered(block, args, kwargs):
            return (args[0].gather(1, at), *args[1:]), kwargs

        blocks[cut].register_forward_pre_hook(gathered, with_kwargs=True)
    else:
        width = batch.inputs["input_ids"].shape[1]
        kept = torch.zeros(len(batch), width + 1).scatter_(1, places, 1.0)[:, :width].bool()
        seen = kept[:, None, None, :].expand(-1, 1, width, -1)
        if kind == "gpt2":
            seen = seen & torch.ones(width, width).tril().bool()
        seen = seen | torch.eye(width).bool()  # a hidden token looks at itself, and nothing looks at it
        mask = torch.zeros(seen.shape, dtype=torch.float64).masked_fill(~seen, -1e30)

        def masked(block, args, kwargs):
            if "attention_mask" in kwargs:
                return args, kwargs | {"attention_mask": mask}
            places = [at for at, one in enumerate(args) if isinstance(one, torch.Tensor) and one.ndim == 4]
            assert len(places) == 1
            return (*args[: places[0]], mask, *args[places[0] + 1 :]), kwargs

        for block in blocks[cut:]:
            block.register_forward_pre_hook(masked, with_kwargs=True)
    logits = model(**with_mask(batch.inputs, batch.lengths)).logits
    loss = torch.nn.functional.cross_entropy(logits, batch.labels)
    loss.backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return loss.item(), {plain_name(name): gradient for name, gradient in grads.items()}


def plain_name(name):
    """The name of an adapter in a state, from that of peft's parameter."""
    return name.replace(".default", "").replace(".modules_to_save", "")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("draw", ["step", "sample"])
def test_a_step_is_that_of_the_whole_model_with_the_kept_tokens_alone_behind_the_cut(kind, draw):
    fleet = fleet_of(kind, replace(HALF, drop_draw=draw))
    start = state_of(adapted(kind)[1])
    fleet.download(0, [0], start)
    batch = fleet.examples.take(fleet.parts[0][:6])
    seeds = {0: 17}
    whole = fleet.devices.forward({0: batch}, seeds)
    hidden, seen = fleet.devices.sent(whole, {0: batch}, seeds)
    at = Position(0, 0, 0)
    message = fleet.exchange.step_message(at, hidden[0], seen[0])
    frame = fleet.exchange.receive_step(message, CUT, torch.device("cpu"))
    [answer] = fleet.servers.differentiate([frame], 5)
    fleet.devices.differentiate({0: answer.gradient})

    counts = batch.counts(whole[0].shape[1])
    drop = fleet.devices.dropping.drop
    last = kind == "gpt2"
    places = torch.from_numpy(drop.places(counts, 17, batch.ids, last=last))
    assert [len(set(row.tolist()) - {max(counts)}) for row in places] == [sent_tokens(n, 0.5) for n in counts]
    loss, wanted = plain_step(kind, batch, places, CUT)
    assert answer.loss == pytest.approx(loss, abs=1e-10)
    stacks = (fleet.devices.segment.stack, fleet.servers.trunks[0].segment.stack)
    found = {name: own for stack in stacks for name, own in stack.named(stack.grads[0]).items()}
    assert {plain_name(name) for name in found} == wanted.keys() and len(found) == len(start)
    for name, own in found.items():
        assert largest_difference(own, wanted[plain_name(name)]) < 1e-9, name


@pytest.mark.parametrize("kind", ["vit", "bert"])
def test_what_was_not_sent_gets_no_gradient(kind):
    fleet = fleet_of(kind, HALF)
    batch = fleet.examples.take(np.arange(5))
    dropping = fleet.devices.dropping
    assert isinstance(dropping, Dropping)
    width = 17 if is_image(kind) else max(batch.counts(0))
    hidden = torch.randn(5, width, WIDTH, dtype=torch.float64)
    sent, seen = dropping.sent({0: hidden}, {0: batch}, {0: 1})
    back = torch.randn_like(sent[0])
    if seen[0].lengths is not None:
        back = back * valid_tokens(seen[0].lengths, back.shape[1])[:, :, None]
    spread = dropping.spread({0: back})[0]
    assert spread.shape == hidden.shape
    here = spread.abs().sum(2) > 0
    assert here.sum(1).tolist() == [sent_tokens(n, 0.5) for n in batch.counts(width)]
    assert here[:, 0].all()
    for row in range(5):
        chosen = hidden[row][here[row]]
        assert torch.equal(sent[0][row, : len(chosen)], chosen)
        assert torch.equal(spread[row][here[row]], back[row, : len(chosen)])


@pytest.mark.parametrize("labels", ["server", "device"])
@pytest.mark.parametrize("kind", ["vit", "bert"])
@pytest.mark.parametrize("method", ["sflam", "sfl-v2", "sl"])
def test_bodies_are_of_the_tokens_that_go_up(kind, labels, method):
    if method == "sl" and labels == "device":
        labels = "server"
    learn = replace(LEARN, method=method, rounds=1, local_steps=2)
    quant = QuantSettings(bits_up=6, bits_down=6) if method == "sflam" else IDENTITY
    fleet = fleet_of(kind, HALF, learn=learn, labels=labels, quant=quant)
    scheme, bits = fleet.exchange.scheme, 6 if method == "sflam" else 64
    records, _ = run(fleet, state_of(fleet.model), 1)
    wanted = 0
    for own in fleet.drawn(0, [0, 1]).values():
        for rows in own:
            counts = [sent_tokens(n, 0.5) for n in fleet.examples.take(rows).counts(17)]
            ragged = len(set(counts)) > 1
            many = len(rows) * (labels == "server")
            wanted += step_body_bytes(
                sum(counts), WIDTH, bits, rows=len(rows), lengths=ragged, labels=many, scheme=scheme
            )
            if labels == "device":
                wanted += step_body_bytes(sum(counts), WIDTH, bits, rows=0, scheme=scheme)
    assert records[0].bytes_up == wanted


@pytest.mark.parametrize("draw", ["step", "sample"])
def test_a_resumed_run_is_the_whole_run(draw):
    learn = replace(LEARN, rounds=4, local_steps=2, state="keep")
    privacy = replace(HALF, drop_draw=draw)
    whole = fleet_of("bert", privacy, learn=learn)
    _, wanted = run(whole, state_of(whole.model), 4)
    first = fleet_of("bert", privacy, learn=learn)
    _, middle = run(first, state_of(first.model), 2)
    second = fleet_of("bert", privacy, learn=learn)
    second.restore(first.state())
    *_, (_, found) = train(second, middle, lambda _: Score(0.0, 0.0), range(2, 4))
    assert_equal_states(found, wanted, 1e-15)


def test_stacked_devices_are_those_of_a_loop():
    found = {}
    for canonical in (False, True):
        fleet = fleet_of("bert", HALF, learn=replace(LEARN, canonical=canonical, local_steps=3))
        found[canonical] = run(fleet, state_of(fleet.model), 2)[1]
    assert_equal_states(found[True], found[False])


def test_devices_that_train_alone_drop_nothing():
    backbone, model, examples = adapted("vit")
    options = {"servers": (0, -1), "cuts": (1, 0), "learn": replace(LEARN, local_steps=2)}
    states = []
    for privacy in (HALF, PrivacySettings()):
        backbone, model, examples = adapted("vit")
        guard = guard_of(privacy, 3)
        fleet = local_fleet(backbone, model, examples, parts_of(SIZES), guard=guard, **options)
        fleet.download(0, [0, 1], state_of(model))
        fleet.local_steps(0, [0, 1])
        states.append(fleet.rows([0, 1])[1][1].clone())
    assert torch.equal(*states)


@pytest.mark.parametrize(
    ("kind", "why"),
    [("beit", "biases by the places"), ("llama", "rotate"), ("gpt2-lm", "learns from every token")],
)
def test_a_model_that_needs_every_token_is_refused_by_name(kind, why):
    with pytest.raises(ModelError, match=rf"privacy\.drop_tokens.*{why}.*set privacy\.drop_tokens = 0"):
        fleet_of(kind, HALF)
