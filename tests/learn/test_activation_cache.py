"""``learn.cache``: kept activations change nothing but what is computed and sent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sflam import sizes
from sflam.codec.settings import QuantSettings
from sflam.errors import WireError
from sflam.learn.examples import Minibatch
from sflam.learn.exchange import Position
from sflam.model.adapters import state_of
from tests.learn.builders import IDENTITY, LEARN, adapted, assert_equal_states, local_fleet, parts_of, run
from tests.tiny import EVERY_KIND, WIDTH, is_lm

FOUR = QuantSettings(bits_up=4, bits_down=4)
CACHES = ("device", "server")


def trained(
    kind, cache, *, quant=IDENTITY, labels="server", sizes=(11, 3, 8), rounds=3, watch=None, **options
):
    backbone, model, examples = adapted(kind, **options)
    learn = replace(LEARN, cache=cache)
    fleet = local_fleet(
        backbone, model, examples, parts_of(sizes), cut=0, learn=learn, quant=quant, labels=labels
    )
    if watch is not None:
        fleet.devices.segment.register_forward_hook(lambda _, given, __: watch.append(len(given[3].copies)))
    return run(fleet, state_of(model), rounds)


@pytest.mark.parametrize("labels", ["server", "device"])
@pytest.mark.parametrize("kind", EVERY_KIND)
def test_caching_changes_nothing_with_the_identity_quantizer(kind, labels):
    """Every family, ragged batches and lengths, the same samples in other company in the second round."""
    without, *with_it = (trained(kind, item, labels=labels, rounds=2) for item in ("off", *CACHES))
    for _, state in with_it:
        assert_equal_states(state, without[1], 1e-6 if is_lm(kind) else 1e-9)


def test_a_device_that_keeps_activations_sends_them_with_new_noise():
    """So even quantized training is that without a cache, and every byte travels."""
    without, with_it = (trained("bert", item, quant=FOUR) for item in ("off", "device"))
    assert_equal_states(with_it[1], without[1], 0.05)
    assert [r.bytes_up for r in with_it[0]] == [r.bytes_up for r in without[0]]
    assert not any(record.saved_bytes for record in with_it[0])


def test_a_server_that_keeps_activations_is_sent_each_sample_once():
    plain, kept = trained("vit", "off", quant=FOUR)[0], trained("vit", "server", quant=FOUR)[0]
    assert kept[0].saved_bytes == 0 and kept[0].code_bytes == plain[0].code_bytes
    tokens = 22 * 17
    for before, after in zip(plain[1:], kept[1:], strict=True):
        assert after.code_bytes == 0 and after.saved_bytes == sizes.codes_bytes(tokens, WIDTH, 4)
        numbers = 4 * 22  # one per sample, instead of all its tokens
        assert before.bytes_up - after.bytes_up == sizes.payload_bytes(tokens, WIDTH, 4) - numbers
        assert after.bytes_down == before.bytes_down


@pytest.mark.parametrize("cache", CACHES)
def test_each_sample_is_run_once(cache):
    ran = []
    trained("bert", cache, watch=ran)
    rows_alone = []
    trained("bert", "off", watch=rows_alone)
    assert len(ran) < len(rows_alone) / 2


def test_noise_of_a_kept_sample_belongs_to_it_and_not_to_the_step():
    """A resumed run sends again, in other steps and batches; the server must see the same numbers."""
    backbone, model, examples = adapted("bert")
    found = []
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        fleet = local_fleet(
            backbone, model, examples, [np.arange(4)], cut=0, learn=replace(LEARN, cache="server"), quant=FOUR
        )
        seen = {}
        for step, rows in enumerate((order[:2], order[2:])):
            batch = examples.take(np.array(rows))
            hidden = fleet.devices.forward({0: batch}, {0: 0})[0]
            frame = fleet.exchange.receive_step(
                fleet.exchange.step_message(Position(0, step, 0), hidden, batch), 0, torch.device("cpu")
            )
            for sample, length, row in zip(
                rows, batch.counts(frame.hidden.shape[1]), frame.hidden, strict=True
            ):
                seen[sample] = row[:length]
        found.append(seen)
    assert all(torch.equal(found[0][sample], found[1][sample]) for sample in range(4))


def test_the_frozen_half_runs_without_dropout_where_it_is_kept():
    runs = [trained("bert", cache, dropout=0.3, rounds=1) for cache in ("off", "device", "server")]
    with pytest.raises(AssertionError):
        assert_equal_states(runs[0][1], runs[1][1], 1e-3)
    assert_equal_states(runs[1][1], runs[2][1])


def test_a_device_half_that_changes_cannot_be_kept():
    backbone, model, examples = adapted("vit")
    with pytest.raises(AssertionError, match=r"run.compatibility"):
        local_fleet(
            backbone, model, examples, parts_of([4, 4]), cuts=[0, 2], learn=replace(LEARN, cache="server")
        )


def test_a_server_refuses_steps_that_do_not_fit_what_it_keeps():
    backbone, model, examples = adapted("bert")
    fleet = local_fleet(
        backbone, model, examples, [np.arange(8)], cut=0, learn=replace(LEARN, cache="server"), quant=FOUR
    )
    batch, at = examples.take(np.arange(4)), Position(0, 0, 0)
    message = fleet.exchange.step_message(at, fleet.devices.forward({0: batch}, {0: 0})[0], batch)
    fleet.exchange.receive_step(message, 0, torch.device("cpu"))
    with pytest.raises(WireError, match="exactly the samples that were not sent"):
        fleet.exchange.receive_step(message, 0, torch.device("cpu"))
    with pytest.raises(WireError, match="without sample numbers"):
        fleet.exchange.receive_step(replace(message, samples=None), 0, torch.device("cpu"))
    with pytest.raises(WireError, match="no two alike"):
        replace(message, samples=np.zeros(4, np.int32))


def test_rows_of_a_minibatch_keep_their_lengths_and_numbers():
    batch = Minibatch(
        {"input_ids": torch.arange(6).view(3, 2)},
        torch.tensor([2, 1, 2]),
        torch.tensor([5, 6, 7]),
        (8, 9, 10),
    )
    some = batch.rows(torch.tensor([2, 0]))
    assert some.ids == (10, 8) and some.lengths.tolist() == [2, 2] and some.labels.tolist() == [7, 5]
    assert some.inputs["input_ids"].tolist() == [[4, 5], [0, 1]]
