"""``learn.device_half = "frozen"``: nothing below the cut changes or is answered, and ``learn.cache`` works there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import sflam
from sflam import config, sizes
from sflam.codec.settings import QuantSettings
from sflam.errors import ConfigError
from sflam.learn.fit import built_step
from sflam.model.adapters import PREFIX, state_of
from sflam.model.dummy_inputs import with_mask
from tests.learn.builders import IDENTITY, LEARN, adapted, assert_equal_states, local_fleet, parts_of, run
from tests.tiny import EVERY_KIND, WIDTH, is_lm

FOUR = QuantSettings(bits_up=4, bits_down=4)
FROZEN = replace(LEARN, device_half="frozen")
CUT = 2
SIZES = (11, 3, 8)


def trained(kind, cache, *, quant=IDENTITY, labels="server", rounds=3, watch=None, learn=FROZEN, **options):
    """Return records, adapters before and after, and the fleet."""
    backbone, model, examples = adapted(kind, **options)
    learn = replace(learn, cache=cache)
    fleet = local_fleet(
        backbone, model, examples, parts_of(SIZES), cut=CUT, learn=learn, quant=quant, labels=labels
    )
    if watch is not None:
        fleet.devices.segment.register_forward_hook(lambda _, given, out: watch.append(len(out)))
    before = state_of(model)
    return *run(fleet, before, rounds), before, fleet


def below(fleet, state, cut=CUT):
    """Return the adapters of the blocks below the cut."""
    path = f"{PREFIX}{fleet.backbone.family.path}."
    return {
        name: tensor
        for name, tensor in state.items()
        if name.startswith(path) and int(name[len(path) :].partition(".")[0]) < cut
    }


@pytest.mark.parametrize("labels", ["server", "device"])
@pytest.mark.parametrize("kind", [*EVERY_KIND, "opt", "electra", "msn"])
def test_only_what_is_above_the_cut_is_trained_and_a_cache_changes_nothing(kind, labels):
    """Every family and some of none, ragged batches and lengths, other company in each round."""
    records, without, before, fleet = trained(kind, "off", labels=labels, rounds=2)
    held = below(fleet, before)
    assert held and all(torch.equal(without[name], tensor) for name, tensor in held.items())
    moved = [name for name in without if not torch.equal(without[name], before[name])]
    assert set(moved) == set(without) - set(held)
    if labels == "server":  # no adapters either way, and of every step the loss alone comes back
        assert not records[0].adapter_bytes_up and not records[0].adapter_bytes_down
        assert records[0].bytes_down == records[0].device_steps * sizes.HEADER_BYTES
    else:  # the head alone; the activations after the last block come back, no gradient at the cut
        head = fleet.devices.segment.stack.size()
        assert records[0].adapter_bytes_up == (len(SIZES) * sizes.adapter_body_bytes(head, 64) if head else 0)
        assert len(moved) > 0 and fleet.devices.segment.names(CUT) == fleet.devices.segment.names(0)
    for cache in ("device", "server"):
        _, state, _, _ = trained(kind, cache, labels=labels, rounds=2)
        assert_equal_states(state, without, 1e-6 if is_lm(kind) else 1e-9)


@pytest.mark.parametrize("labels", ["server", "device"])
@pytest.mark.parametrize("method", ["sfl-v1", "sfl-v2"])
def test_the_head_alone_is_trained_where_every_block_is_on_devices(labels, method):
    """With labels at home the server holds nothing of the model, and what went through it has no gradient."""
    backbone, model, examples = adapted("vit")
    learn = replace(FROZEN, method=method)
    options = {"cut": backbone.depth, "learn": learn, "labels": labels}
    fleet = local_fleet(backbone, model, examples, parts_of(SIZES), **options)
    before = state_of(model)
    _, after = run(fleet, before, 2)
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved == set(after) - set(below(fleet, before, backbone.depth)) and moved


@pytest.mark.parametrize("labels", ["server", "device"])
def test_a_half_that_leaves_nothing_to_train_is_refused(labels):
    backbone, model, examples = adapted("gpt2-lm")  # its head has no weights of its own
    options = {"cut": backbone.depth, "learn": FROZEN, "labels": labels}
    with pytest.raises(ConfigError, match=r"nothing is trained.*device_half"):
        local_fleet(backbone, model, examples, parts_of(SIZES), **options)


@pytest.fixture
def one_thread():
    """As a canonical run sets it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", ["vit", "bert", "llama", "gpt2-lm", "opt"])
def test_a_cache_changes_no_bit_in_canonical_mode(kind):
    """Whichever rows a sample comes with, and however far these are padded."""
    learn = replace(FROZEN, canonical=True)
    states = [trained(kind, item, learn=learn)[1] for item in ("off", "device", "server")]
    for other in states[1:]:
        assert all(torch.equal(states[0][name], other[name]) for name in other)


@pytest.mark.parametrize("labels", ["server", "device"])
def test_the_bytes_of_a_whole_training_are_those_of_one_epoch(labels):
    plain = trained("vit", "off", quant=FOUR, labels=labels)[0]
    kept = trained("vit", "server", quant=FOUR, labels=labels)[0]
    rows, tokens = sum(SIZES), 17 * sum(SIZES)
    once, numbers = sizes.payload_bytes(tokens, WIDTH, 4), 4 * rows
    epochs = len(plain)
    assert epochs == 3
    spared = sum(record.bytes_up for record in plain) - sum(record.bytes_up for record in kept)
    assert spared == (epochs - 1) * once - epochs * numbers
    if labels == "server":
        steps = sum(record.device_steps for record in kept)
        labels_sent = epochs * 4 * rows
        sent = sum(record.bytes_up for record in kept)
        assert sent == once + epochs * numbers + labels_sent + steps * sizes.HEADER_BYTES
        assert sum(record.bytes_down for record in kept) == steps * sizes.HEADER_BYTES
        assert sum(record.code_bytes for record in kept) == sizes.codes_bytes(tokens, WIDTH, 4)


@pytest.mark.parametrize("cache", ["device", "server"])
def test_each_sample_is_run_once(cache):
    ran = []
    trained("bert", cache, watch=ran)
    assert sum(ran) == sum(SIZES)


def test_the_frozen_half_runs_with_dropout_only_where_it_is_not_kept():
    runs = [trained("bert", cache, dropout=0.3, rounds=1)[1] for cache in ("off", "device", "server")]
    with pytest.raises(AssertionError):
        assert_equal_states(runs[0], runs[1], 1e-3)
    assert_equal_states(runs[1], runs[2])


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_devices_have_no_optimiser_state_and_keep_no_graph(optimizer):
    learn = replace(FROZEN, state="keep", optimizer=optimizer, momentum=0.9)
    _, _, _, fleet = trained("bert", "off", learn=learn)
    assert not fleet.devices.segment.stack.values.numel()
    assert not any(t.numel() for item in fleet.devices.state().values() for t in item.values() if t.dim())
    assert fleet.memory(built_step(fleet.backbone, 10, learn)).device.trained == 0


@pytest.mark.parametrize("labels", ["server", "device"])
def test_going_on_from_an_adapter_keeps_the_frozen_half_of_it(labels, small, tmp_path):
    """In evaluation and on the devices: the two halves are the whole model that is evaluated."""
    asked = [*small, "learn.rounds=1", "quant.scheme=identity", f"model.labels={labels}"]
    first = sflam.train(config.load(None, asked), tmp_path / "first")
    more = ["model.cut=2", "learn.device_half=frozen", "learn.cache=server", "learn.rounds=2"]
    more.append(f"model.adapter={tmp_path / 'first' / 'adapter'}")
    job = config.load(None, [*asked, *more])
    run = sflam.start(job, tmp_path / "second")
    began = dict(run.state)
    assert first.accuracy == pytest.approx(run.assembly.evaluate(began).accuracy)
    list(run.rounds())
    fleet, model = run.assembly.halves, run.assembly.model
    held = below(fleet, began)
    assert held and any(bool(t.abs().max() > 0) for name, t in held.items() if "lora_B" in name)
    assert all(torch.equal(run.state[name], tensor) for name, tensor in held.items())
    run.assembly.evaluate(run.state)  # puts the state into the whole model
    batch = fleet.examples.take(np.arange(5))
    fleet.download(9, [0], run.state)
    hidden = fleet.devices.forward({0: batch}, {0: 1})[0]
    with torch.no_grad():
        wanted = model.eval()(**with_mask(batch.inputs, batch.lengths), output_hidden_states=True)
    assert torch.allclose(hidden, wanted.hidden_states[2], atol=1e-5)


@pytest.mark.parametrize("labels", ["server", "device"])
def test_devices_that_take_turns_hand_on_what_is_trained(labels):
    learn = replace(FROZEN, method="sl")
    records, state, before, fleet = trained("bert", "server", learn=learn, labels=labels)
    held = below(fleet, before)
    assert held and all(torch.equal(state[name], tensor) for name, tensor in held.items())
    if labels == "server":
        assert records[0].code_bytes and not any(record.code_bytes for record in records[1:])
