"""Bytes are those of real bodies, and what a device need not send costs nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sflam import sizes
from sflam.codec.bodies import encode
from sflam.codec.settings import QuantSettings
from sflam.learn.examples import Minibatch
from sflam.learn.exchange import Exchange, Position
from sflam.learn.frames import Answer
from sflam.model.adapters import state_of
from tests.learn.builders import IDENTITY, adapted, local_fleet, parts_of, run
from tests.tiny import WIDTH

PATCHES = 17


@pytest.mark.parametrize(
    "quant", [QuantSettings(bits_up=4, bits_down=8), QuantSettings(bits_up=3, bits_down=11, bits_adapters=5)]
)
@pytest.mark.parametrize("cut", [0, 1])
def test_bytes_of_a_round_are_the_sum_of_its_bodies(quant, cut):
    """Devices of 6 and 3 samples in batches of 4: bodies of 4, 2 and 3 rows, counted by formula."""
    backbone, model, examples = adapted("vit")
    fleet = local_fleet(backbone, model, examples, parts_of([6, 3]), cut=cut, quant=quant)
    (record,), _ = run(fleet, state_of(model), 1)
    rows = [4, 2, 3]
    up = [sizes.step_body_bytes(n * PATCHES, WIDTH, quant.bits_up, rows=n, labels=n) for n in rows]
    assert record.bytes_up == sum(up)
    if cut == 0:  # nothing trains on the device: only the loss comes back, no adapters travel
        assert record.bytes_down == len(rows) * sizes.token_body_bytes(0, WIDTH, quant.bits_down)
        assert record.adapter_bytes_up == record.adapter_bytes_down == 0
        return
    down = [sizes.token_body_bytes(n * PATCHES, WIDTH, quant.bits_down) for n in rows]
    assert record.bytes_down == sum(down)
    codes = sum(
        sizes.codes_bytes(n * PATCHES, WIDTH, b) for n in rows for b in (quant.bits_up, quant.bits_down)
    )
    assert record.code_bytes == codes
    held = fleet.devices.segment.stack.size(fleet.devices.segment.names(1))
    adapters = sizes.adapter_body_bytes(held, 64)  # the tiny models of tests are float64
    assert record.adapter_bytes_down == 2 * adapters
    assert record.adapter_bytes_up == 2 * sizes.adapter_body_bytes(held, quant.bits_adapters)


def test_unquantized_methods_send_floats():
    backbone, model, examples = adapted("vit")
    fleet = local_fleet(backbone, model, examples, parts_of([4]), quant=IDENTITY)
    (record,), _ = run(fleet, state_of(model), 1)
    assert record.bytes_up == sizes.step_body_bytes(
        4 * PATCHES, WIDTH, 64, rows=4, labels=4, scheme="identity"
    )


@pytest.mark.parametrize("kind", ["bert", "gpt2-lm"])
def test_masked_tokens_cost_no_bits_and_no_mask_crosses(kind):
    """The body holds valid tokens, one length per row, and labels; never a mask or a padded position."""
    backbone, model, examples = adapted(kind)
    indices = np.arange(4)
    one = examples.take(indices)
    valid = int(one.lengths.sum())
    assert valid < one.inputs["input_ids"].numel()
    fleet = local_fleet(backbone, model, examples, [indices], quant=QuantSettings(bits_up=4, bits_down=4))
    (record,), _ = run(fleet, state_of(model), 1)
    labels = valid if kind == "gpt2-lm" else 4
    assert record.bytes_up == sizes.step_body_bytes(valid, WIDTH, 4, rows=4, lengths=True, labels=labels)
    assert record.bytes_down == sizes.token_body_bytes(valid, WIDTH, 4)


def test_padding_cannot_change_what_is_sent():
    """Garbage in masked positions moves neither a byte nor what the server sees."""
    exchange = Exchange("uniform", seed=1, bits={0: (4, 4)})
    hidden = torch.randn(2, 5, 8)
    lengths, labels = torch.tensor([5, 2]), torch.tensor([0, 1])
    at = Position(0, 0, 0)
    batch = Minibatch({}, lengths, labels)
    message = exchange.step_message(at, hidden, batch)
    hidden[1, 2:] = 1e6
    assert encode(exchange.step_message(at, hidden, batch)) == encode(message)
    frame = exchange.receive_step(message, 1, torch.device("cpu"))
    assert not frame.hidden[1, 2:].any()
    assert frame.lengths.tolist() == [5, 2] and frame.labels.tolist() == [0, 1]


def test_every_exchange_has_its_own_noise():
    exchange = Exchange("uniform", seed=1, bits={0: (2, 2), 1: (2, 2)})
    hidden, batch = torch.randn(2, 5, 8), Minibatch({}, None, torch.tensor([0, 1]))
    codes = {
        exchange.step_message(Position(*at), hidden, batch).activations.codes.tobytes()
        for at in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    }
    down = exchange.answer_message(Position(0, 0, 0), Answer(0, 0.5, hidden), None).gradient.codes.tobytes()
    assert len(codes | {down}) == 5


def test_training_sees_what_was_decoded():
    """One bit up changes what the server trains on, visibly and boundedly."""
    backbone, model, examples = adapted("vit")
    losses = {}
    for bits in (1, 8):
        quant = QuantSettings(bits_up=bits, bits_down=8)
        fleet = local_fleet(backbone, model, examples, parts_of([8]), quant=quant)
        losses[bits] = run(fleet, state_of(model), 1)[0][0].loss
    exact = run(local_fleet(backbone, model, examples, parts_of([8])), state_of(model), 1)[0][0].loss
    assert 0 < abs(losses[8] - exact) < 0.02 < abs(losses[1] - exact)
