"""Served == simulated: the same job over processes, sockets and TLS gives the adapters of the simulation."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

import sflam
from sflam import config
from sflam.records import history
from tests.learn.builders import assert_equal_states
from tests.reviews import write_asked
from tests.serve.network import adapters_of, network

JOB = (
    "fleet.devices=3",
    "learn.rounds=2",
    "learn.local_steps=2",
    "learn.batch=8",
    "learn.device=cpu",
    "learn.evaluate_every=0",
    "data.partition=iid",
    "model.rank=2",
)
FOUR_BITS = (*JOB, "learn.canonical=true", "quant.bits_up=4", "quant.bits_down=4")


def job_of(room, *settings):
    return (*JOB, f"model.name={room / 'vit'}", *settings)


def sets(settings):
    return [word for setting in settings for word in ("--set", setting)]


def served(folder, settings, devices=3, **options):
    """Serve a job to its devices until it ends; return the adapters."""
    with network(folder, devices) as net:
        server = net.serve(*sets(settings), "--out", folder / "run", *options.get("serve", ()))
        joined = [net.join(device, *options.get("join", ())) for device in range(devices)]
        assert server.wait() == 0, server.lines
        assert [device.wait(20) for device in joined] == [0] * devices, [device.lines for device in joined]
    return adapters_of(folder / "run")


def simulated(folder, settings):
    sflam.train(config.load(None, settings), folder)
    return adapters_of(folder)


def test_four_bits_bit_for_bit(room, tmp_path):
    settings = job_of(room, *FOUR_BITS)
    found, wanted = served(tmp_path, settings), simulated(tmp_path / "local", settings)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted), {
        name: float((found[name] - wanted[name]).abs().max()) for name in wanted
    }


@pytest.mark.parametrize("scale", ["own", pytest.param("common", marks=pytest.mark.slow)])
@pytest.mark.parametrize("bits", [pytest.param(2, marks=pytest.mark.slow), 8])
def test_changes_of_adapters_bit_for_bit(room, tmp_path, scale, bits):
    """Steps of Adam from a fresh start move numbers as far as they can: rounding, which moves them on, is no lie."""
    few = (f"quant.bits_adapters={bits}", f"quant.adapters_scale={scale}", "learn.rounds=3")
    settings = job_of(room, *FOUR_BITS, *few)
    found, wanted = served(tmp_path, settings), simulated(tmp_path / "local", settings)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    rounds = [history.read(folder / "history.jsonl")[1] for folder in (tmp_path / "run", tmp_path / "local")]
    sent = [[(one.adapter_bytes_up, one.adapter_bytes_down) for one in each] for each in rounds]
    assert sent[0] == sent[1] and sent[0][0][0] < sent[0][0][1]


SUMS = ("privacy.secure_aggregation=true", "quant.adapters_scale=common", "fleet.devices=4")


@pytest.mark.parametrize("labels", ["server", pytest.param("device", marks=pytest.mark.slow)])
def test_sums_under_masks_bit_for_bit(room, tmp_path, labels):
    settings = job_of(room, *FOUR_BITS, *SUMS, f"model.labels={labels}")
    found, wanted = served(tmp_path, settings, devices=4), simulated(tmp_path / "local", settings)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    rounds = [history.read(folder / "history.jsonl")[1] for folder in (tmp_path / "run", tmp_path / "local")]
    seen = [[(r.secured, r.adapter_bytes_up, r.adapter_bytes_down) for r in each] for each in rounds]
    assert seen[0] == seen[1] and seen[0][0][0].devices == (0, 1, 2, 3)


@pytest.mark.parametrize(
    "tuned",
    [
        ("model.tuned=-1",),
        ("fleet.tuned=[1, -1, 0]",),
        pytest.param(("model.tuned=1", "model.labels=device"), marks=pytest.mark.slow),
        pytest.param(("fleet.tuned=[-2, 1, -1]", "model.dropout=0.2"), marks=pytest.mark.slow),
    ],
)
def test_adapters_in_some_blocks_bit_for_bit(room, tmp_path, tuned):
    settings = job_of(room, *FOUR_BITS, "model.cut=2", *tuned)
    found, wanted = served(tmp_path, settings), simulated(tmp_path / "local", settings)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    blocks = {name.split(".layers.")[1].split(".")[0] for name in wanted if ".layers." in name}
    assert len(blocks) == (1 if "model" in tuned[0] else 3)


@pytest.mark.parametrize(
    "more", [(), pytest.param(("model.labels=device", "model.cut=2"), marks=pytest.mark.slow)]
)
def test_every_weight_bit_for_bit(room, tmp_path, more):
    settings = job_of(room, *FOUR_BITS, "model.trainable=full", "quant.bits_adapters=32", *more)
    found, wanted = served(tmp_path, settings), simulated(tmp_path / "local", settings)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_corrected_frozen_weights_bit_for_bit(room, tmp_path):
    """A device that a round does not draw has, when it comes again, what the rounds between corrected."""
    settings = job_of(room, *FOUR_BITS, "learn.aggregation=residual", "fleet.selected=2", "learn.rounds=4")
    found, wanted = served(tmp_path, settings), simulated(tmp_path / "local", settings)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    merged = [
        load_file(run / "model" / "model.safetensors") for run in (tmp_path / "run", tmp_path / "local")
    ]
    assert all(torch.equal(merged[0][name], merged[1][name]) for name in merged[1])


def test_kept_activations_bit_for_bit(room, tmp_path):
    settings = job_of(room, *FOUR_BITS, "learn.cache=server", "learn.device_half=frozen", "learn.rounds=3")
    found, wanted = served(tmp_path, settings), simulated(tmp_path / "local", settings)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    rounds = [history.read(folder / "history.jsonl")[1] for folder in (tmp_path / "run", tmp_path / "local")]
    sent = [[one.bytes_up for one in each] for each in rounds]
    assert sent[0] == sent[1] and sent[0][2] < sent[0][0]


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["server", "device"])
def test_measured_passes_are_those_of_the_memory_found_bit_for_bit(room, tmp_path, labels):
    settings = job_of(room, *FOUR_BITS, "learn.batch=20", f"model.labels={labels}")
    found = served(tmp_path, (*settings, "learn.passes=measured", "learn.canonical=false"))
    kept = config.load(tmp_path / "run" / "config.toml", ()).learn
    assert kept.passes == "rule" and kept.memory_gb > 0
    asked = (*settings, f"learn.memory_gb={kept.memory_gb!r}", "learn.canonical=false")
    wanted = simulated(tmp_path / "local", asked)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.slow
def test_four_bits_bit_for_bit_with_labels_at_home(room, tmp_path):
    settings = job_of(room, *FOUR_BITS, "model.labels=device", "learn.state=keep")
    found, wanted = served(tmp_path, settings), simulated(tmp_path / "local", settings)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("labels", ["server", pytest.param("device", marks=pytest.mark.slow)])
def test_a_schedule_bit_for_bit(room, tmp_path, labels):
    """Devices of unequal numbers of steps follow it with nothing but the number of the round."""
    falling = ("learn.schedule=cosine", "learn.warmup=0.2", "learn.decay=0.7", "learn.state=keep")
    unlike = ("data.partition=dirichlet", "learn.local_steps=0", "learn.batch=100", "data.validation=0.2")
    settings = job_of(room, *FOUR_BITS, *unlike, *falling, f"model.labels={labels}")
    found, wanted = served(tmp_path, settings), simulated(tmp_path / "local", settings)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    rounds = [history.read(folder / "history.jsonl")[1] for folder in (tmp_path / "run", tmp_path / "local")]
    assert len(set(rounds[0][0].device_samples)) > 1
    scores = [[(one.loss, one.validation_loss, one.validation_accuracy) for one in each] for each in rounds]
    assert scores[0] == scores[1] and scores[0][-1][1] is not None


@pytest.mark.parametrize("labels", ["server", pytest.param("device", marks=pytest.mark.slow)])
def test_chunks_bit_for_bit(room, tmp_path, labels):
    """A step that goes through the server row by row is one in both, and not that of a single pass."""
    small = ("learn.memory_gb=1e-6", f"model.labels={labels}")
    settings = job_of(room, *FOUR_BITS, *small)
    found, wanted = served(tmp_path, settings), simulated(tmp_path / "local", settings)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    whole = simulated(tmp_path / "whole", job_of(room, *FOUR_BITS, f"model.labels={labels}"))
    assert not all(torch.equal(whole[name], wanted[name]) for name in wanted)


def test_a_run_that_stops_early_ends_its_devices(room, tmp_path):
    """With a rate that moves nothing no score is better than the first; devices leave as at any end."""
    stopping = ("learn.rounds=9", "learn.stop_after=2", "learn.evaluate_every=1", "learn.lr=1e-30")
    served(tmp_path, job_of(room, *FOUR_BITS, *stopping))
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["rounds"], result["stopped_round"]) == (3, 3)
    assert result["validation_accuracy"] is not None
    with network(tmp_path / "again", 3) as net:  # resumed without any device: it is finished
        server = net.serve("--resume", tmp_path / "run")
        assert server.wait() == 0, server.lines
    assert len(history.read(tmp_path / "run" / "history.jsonl")[1]) == 3


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["server", "device"])
def test_floats_to_rounding_error_in_any_order(room, tmp_path, labels):
    settings = job_of(room, "quant.scheme=identity", "model.dtype=float64", f"model.labels={labels}")
    assert_equal_states(served(tmp_path, settings), simulated(tmp_path / "local", settings))


@pytest.mark.slow
def test_a_plan_for_every_device_bit_for_bit(room, tmp_path):
    given = [(1, 4, 3), (2, 2, 5), (0, 7, 1)]
    devices = [{"cut": cut, "bits": up, "bits_down": down} for cut, up, down in given]
    (tmp_path / "plan.json").write_text(json.dumps({"devices": devices}))
    settings = job_of(room, *JOB, "learn.canonical=true")
    found = served(tmp_path, settings, serve=("--plan", tmp_path / "plan.json"))
    cuts, up, down = (list(column) for column in zip(*given, strict=True))
    planned = (f"fleet.cuts={cuts}", f"fleet.bits_up={up}", f"fleet.bits_down={down}")
    wanted = simulated(tmp_path / "local", (*settings, *planned))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    _, records = history.read(tmp_path / "run" / "history.jsonl")
    assert [(one.measured.cuts, one.measured.bits_up) for one in records] == [((1, 2, 0), (4, 2, 7))] * 2


@pytest.mark.parametrize(
    "settings",
    [
        ("learn.local_steps=2",),
        pytest.param(("learn.aggregation=freeze-a", "model.labels=device"), marks=pytest.mark.slow),
        pytest.param(("learn.aggregation=svd",), marks=pytest.mark.slow),
    ],
)
def test_devices_of_their_own_ranks(room, tmp_path, settings):
    """A device of a lower rank holds and sends that much; the server pads it with zeros as a simulation does."""
    ranks = ("model.rank=4", "fleet.ranks=[1, 4, 2]", "quant.scheme=identity", "model.dtype=float64")
    settings = job_of(room, *ranks, *settings)
    found, wanted = served(tmp_path, settings), simulated(tmp_path / "local", settings)
    assert_equal_states(found, wanted)
    rounds = [history.read(folder / "history.jsonl")[1] for folder in (tmp_path / "run", tmp_path / "local")]
    for mine, theirs in zip(*rounds, strict=True):
        assert mine.adapter_bytes_up == theirs.adapter_bytes_up > 0
        assert mine.adapter_bytes_down == theirs.adapter_bytes_down
    parts = sorted(path.name for path in (tmp_path / "run").rglob("cut-*-rank-*"))
    assert parts == [f"cut-1-rank-{rank}.safetensors" for rank in (1, 2, 4)], "each is sent its own part"


def test_a_head_of_each_device_s_own_is_served_where_the_server_has_it(room, tmp_path):
    settings = job_of(room, *FOUR_BITS, "learn.personal=head", "learn.evaluate_every=1", "learn.state=keep")
    found, wanted = served(tmp_path, settings), simulated(tmp_path / "local", settings)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    folders = [tmp_path / "run" / "personal", tmp_path / "local" / "personal"]
    names = [sorted(path.name for path in folder.iterdir()) for folder in folders]
    assert names[0] == names[1] and len(names[0]) == 3
    for name in names[0]:
        own, theirs = (load_file(folder / name) for folder in folders)
        assert own.keys() == theirs.keys() and all(torch.equal(own[each], theirs[each]) for each in own)
    rounds = [history.read(folder.parent / "history.jsonl")[1] for folder in folders]
    assert [one.evaluated_accuracy for one in rounds[0]] == [one.evaluated_accuracy for one in rounds[1]]
    assert rounds[0][-1].device_class_accuracy == rounds[1][-1].device_class_accuracy != ()


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["server", "device"])
def test_answers_to_prompts_bit_for_bit(tmp_path, labels):
    write_asked(tmp_path / "shelf")
    asked = ("data.label=", "data.input=ask", "data.answer=reply", f"model.labels={labels}")
    where = (f"model.name={tmp_path}/shelf/gpt2-lm", f"data.name={tmp_path}/shelf/asked.jsonl")
    settings = (*FOUR_BITS, *asked, *where)
    found, wanted = (
        served(tmp_path, settings, join=("--data", f"{tmp_path}/shelf/asked.jsonl", "--share")),
        simulated(tmp_path / "local", settings),
    )
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
