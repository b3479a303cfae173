"""``quant.delta``: both ends have the same table whatever was sent, and what quantization loses comes with the next."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sflam
from sflam import config, sizes
from sflam.codec.bodies import encode
from sflam.codec.messages import StepFrame
from sflam.codec.settings import QuantSettings
from sflam.errors import WireError
from sflam.learn.activation_cache import CachedExchange
from sflam.learn.delta import DeltaExchange
from sflam.learn.examples import Minibatch
from sflam.learn.exchange import Exchange, Position, opened
from sflam.learn.fit import built_step
from sflam.model.adapters import state_of
from tests.learn.builders import LEARN, adapted, local_fleet, parts_of, run
from tests.simulate.builders import ran, timeless
from tests.tiny import WIDTH

CPU = torch.device("cpu")
SAMPLES, DIM = 6, 24
FOUR = QuantSettings(bits_up=4, bits_down=4)


def batch_of(samples, lengths):
    """Return a mini-batch of numbered samples, each as long as it always is; None of lengths are images."""
    own = None if lengths is None else torch.tensor([lengths[sample] for sample in samples])
    return Minibatch({}, own, torch.zeros(len(samples), dtype=torch.long), tuple(samples))


def sent(exchange, at, hidden, batch):
    """Return what arrives of activations, over real bytes."""
    message = opened(encode(exchange.step_message(at, hidden, batch)), StepFrame)
    return message, exchange.receive_step(message, 1, CPU).hidden


def assert_equal_tables(exchange):
    one, other = exchange.sent.items(), exchange.received.items()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


visits = st.lists(
    st.tuples(
        st.integers(0, 2),  # device
        st.lists(st.integers(0, SAMPLES - 1), min_size=1, max_size=SAMPLES, unique=True),
        st.integers(1, 8),  # bits of this visit: plans may change them
        st.floats(1e-3, 1e4),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(visits, st.sampled_from(["uniform", "rotated"]), st.booleans(), st.integers(0, 99))
def test_both_tables_are_equal_to_the_bit_after_any_sequence_of_batches(visited, scheme, ragged, seed):
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 5, (SAMPLES,), generator=draw).tolist() if ragged else None
    exchange = DeltaExchange(scheme, seed)
    seen = set()
    for step, (device, samples, bits, scale) in enumerate(visited):
        exchange = exchange.with_bits({device: (bits, 8)})
        batch = batch_of(samples, lengths)
        width = 4 if lengths is None else int(batch.lengths.max())
        hidden = torch.randn(len(samples), width, DIM, generator=draw) * scale
        _, found = sent(exchange, Position(0, step, device), hidden, batch)
        assert_equal_tables(exchange)
        for row, (sample, count) in enumerate(zip(samples, batch.counts(width), strict=True)):
            assert torch.equal(found[row, :count], exchange.received.items()[device, sample])
            assert not found[row, count:].any()
        seen |= {(device, sample) for sample in samples}
    assert set(exchange.sent.items()) == seen
    again = DeltaExchange(scheme, seed)
    again.restore(exchange.state())
    assert_equal_tables(again)
    assert again.state().keys() == exchange.state().keys()
    assert all(torch.equal(row, again.sent.items()[key]) for key, row in exchange.sent.items().items())


@settings(max_examples=20, deadline=None)
@given(visits, st.integers(0, 99), st.sampled_from([torch.float32, torch.float64]))
def test_raw_floats_arrive_exactly_as_they_are(visited, seed, dtype):
    draw = torch.Generator().manual_seed(seed)
    exchange = DeltaExchange("identity", seed)
    for step, (device, samples, _, scale) in enumerate(visited):
        hidden = torch.randn(len(samples), 4, DIM, generator=draw, dtype=dtype) * scale
        _, found = sent(exchange, Position(0, step, device), hidden, batch_of(samples, None))
        assert torch.equal(found, hidden)


@pytest.mark.parametrize("scheme", ["uniform", "rotated"])
def test_the_first_visit_sends_the_activations_themselves(scheme):
    hidden, batch, at = torch.randn(3, 4, DIM), batch_of([4, 0, 2], None), Position(0, 0, 1)
    bits = {1: (3, 3)}
    plain, found = sent(Exchange(scheme, 7, bits), at, hidden, batch)
    message, received = sent(DeltaExchange(scheme, 7, bits), at, hidden, batch)
    assert np.array_equal(message.activations.codes, plain.activations.codes)
    assert message.samples.tolist() == [4, 0, 2] and torch.equal(received, found)


@pytest.mark.parametrize("bits", [2, 4])
def test_what_is_lost_comes_with_the_next_visit(bits):
    """Of activations that stay, each visit leaves at most the share 1 / (2^bits - 1) of the range of the loss."""
    hidden, batch = torch.randn(3, 4, DIM), batch_of([0, 1, 2], None)
    exchange, errors = DeltaExchange("uniform", 7, {0: (bits, 8)}), []
    for step in range(6):
        _, found = sent(exchange, Position(0, step, 0), hidden, batch)
        errors.append(float((found - hidden).abs().max()))
    for before, after in itertools.pairwise(errors):
        assert after <= 2 * before * 1.02 / (2**bits - 1) + 1e-6
    assert errors[-1] < errors[0] * (0.2 if bits == 2 else 1e-4)


def test_a_change_that_does_not_fit_is_refused():
    exchange = DeltaExchange("uniform", 7, {0: (4, 4)})
    hidden, batch = torch.randn(2, 4, DIM), batch_of([0, 1], None)
    message, _ = sent(exchange, Position(0, 0, 0), hidden, batch)
    with pytest.raises(WireError, match="without sample numbers"):
        exchange.receive_step(replace(message, samples=None), 1, CPU)
    with pytest.raises(WireError, match="sample 1 of device 0 has 3 tokens, but 4 before"):
        exchange.step_message(Position(0, 1, 0), torch.randn(1, 3, DIM), batch_of([1], None))
    short = Exchange("uniform", 7, {0: (4, 4)}).quantizer.encode(torch.randn(6, DIM), 4, 1)
    with pytest.raises(WireError, match="sample"):
        exchange.receive_step(replace(message, activations=short), 1, CPU)


def trained(kind, *, rounds=3, labels="server", quant=FOUR, delta=True, **options):
    backbone, model, examples = adapted(kind, dtype=torch.float32)
    fleet = local_fleet(
        backbone, model, examples, parts_of([11, 3, 8]), quant=quant, labels=labels, delta=delta, **options
    )
    return *run(fleet, state_of(model), rounds), fleet


@pytest.mark.parametrize("labels", ["server", "device"])
@pytest.mark.parametrize("kind", ["vit", "bert", "gpt2-lm"])
def test_runs_have_equal_tables_and_a_number_more_per_row(kind, labels):
    records, _, fleet = trained(kind, labels=labels)
    assert_equal_tables(fleet.exchange)
    assert len(fleet.exchange.sent) == 22
    plain = trained(kind, labels=labels, delta=False)[0]
    for one, other in zip(records, plain, strict=True):
        assert one.bytes_up - other.bytes_up == 4 * one.samples
        assert (one.bytes_down, one.code_bytes) == (other.bytes_down, other.code_bytes)


def test_a_later_round_is_closer_to_what_was_sent(monkeypatch):
    """The first visit is as without it; then only the change carries noise."""
    errors = {}
    for delta in (False, True):
        found = []

        def watched(self, messages, cuts, device, plain=Exchange.receive_steps, found=found):
            [frame] = plain(self, messages, cuts, device)
            found[-1].append(float((frame.hidden - found[-1].pop(0)).abs().mean()))
            return [frame]

        def outgoing(self, at, hidden, batches, plain=Exchange.step_messages, found=found, **options):
            found.append([hidden[0].clone()])
            return plain(self, at, hidden, batches, **options)

        with monkeypatch.context() as patch:
            patch.setattr(Exchange, "step_messages", outgoing)
            patch.setattr(Exchange, "receive_steps", watched)
            backbone, model, examples = adapted("vit", dtype=torch.float32)
            fleet = local_fleet(
                backbone, model, examples, [np.arange(8)], quant=FOUR, delta=delta,
                learn=replace(LEARN, lr=1e-3, batch=8),
            )  # fmt: skip
            run(fleet, state_of(model), 4)
        errors[delta] = [error for (error,) in found]
    assert errors[True][0] == errors[False][0]
    assert max(errors[True][1:]) < min(errors[False]) / 3


def test_a_run_goes_on_as_if_it_had_not_stopped(small, tmp_path):
    asked = [*small, "quant.delta=true", "quant.bits_up=3", "learn.rounds=3", "learn.canonical=true"]
    whole = sflam.start(config.load(None, asked), tmp_path / "whole")
    list(whole.rounds())
    run = sflam.start(config.load(None, asked), tmp_path / "stopped")
    for record in run.rounds():
        if record.round == 1:
            break
    again = sflam.resume(tmp_path / "stopped")
    list(again.rounds())
    assert timeless(again.records) == timeless(whole.records)
    assert all(torch.equal(again.state[name], whole.state[name]) for name in whole.state)
    assert_equal_tables(again.assembly.halves.exchange)


def test_a_simulated_run_is_charged_as_planned(small, tmp_path):
    """The change of a sample takes as many bits as the sample; its number, four bytes more."""
    plain, delta = (
        ran(
            small,
            tmp_path / word,
            f"quant.delta={word}",
            "learn.evaluate_every=0",
            "network.downlink_mbps=40",
        )
        for word in ("false", "true")
    )
    for one, other in zip(plain.records, delta.records, strict=True):
        assert other.charge.charged_s == pytest.approx(other.charge.predicted_s, rel=1e-9)
        assert one.charge.charged_s < other.charge.charged_s
        assert other.bytes_up == one.bytes_up + 4 * other.samples
        assert other.bytes_down == one.bytes_down


@pytest.mark.parametrize("kind", ["vit", "bert"])
def test_the_memory_note_counts_what_is_kept(kind):
    """Measured after every sample was visited: the table of the device with most, the server's, and both here."""

    def bytes_of(table, device=None):
        return sum(row.nbytes for (owner, _), row in table.items().items() if device in (None, owner))

    _, _, fleet = trained(kind)
    step = built_step(fleet.backbone, 17 if kind == "vit" else 10, fleet.learn)
    need = fleet.memory(step)
    assert need.device.kept == max(bytes_of(fleet.exchange.sent, device) for device in range(3)) > 0
    assert need.server.kept == bytes_of(fleet.exchange.received)
    assert need.process.kept == 2 * need.server.kept
    without = trained(kind, rounds=1, delta=False)[2].memory(step)
    assert need.device.total - need.device.kept == without.device.total
    assert "kept" in str(need.device) and "kept" not in str(without.device)


@pytest.mark.parametrize("cache", ["device", "server"])
def test_the_memory_note_counts_what_a_cache_keeps(cache):
    learn = replace(LEARN, device_half="frozen", cache=cache)
    _, _, fleet = trained("bert", delta=False, learn=learn, cut=2)
    need = fleet.memory(built_step(fleet.backbone, 10, learn))
    if cache == "device":
        held = [0, 0, 0]
        for (device, _), row in fleet.devices.kept._rows.items():
            held[device] += row.nbytes
        assert (need.device.kept, need.server.kept, need.process.kept) == (max(held), 0, sum(held))
    else:
        assert isinstance(fleet.exchange, CachedExchange)
        held = sum(packed.nbytes for own in fleet.exchange.kept.values() for packed in own.values())
        assert (need.device.kept, need.server.kept, need.process.kept) == (0, held, held)
        tokens = int(fleet.examples.dataset.lengths[:22].sum())
        assert held == sizes.payload_bytes(tokens, WIDTH, 4)
