"""A finished run predicts for devices that hold its first blocks: as in one process, and refused where it cannot."""

from __future__ import annotations

import http.client
import json
import signal
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

import sflam
from sflam import config
from sflam.codec.bodies import decode, encode
from sflam.codec.legs import HEAD_DOWN
from sflam.data.sources import load_for_prediction
from sflam.errors import Refused, SflamError
from sflam.learn.exchange import Exchange, Position
from sflam.learn.methods import method_of
from sflam.link.https_client import Link
from sflam.model.lora import Rows
from sflam.model.split import Arrival, split
from sflam.records.run_folder import RunFolder
from sflam.run.assemble import examples_of, preprocessor_of
from sflam.run.saved_model import saved_model
from sflam.serve.answers.answering import AnswerServer
from sflam.serve.answers.asking import GUARDED, predict_split
from sflam.serve.answers.offer import ROWS
from sflam.serve.answers.trunk_half import TrunkHalf
from sflam.serve.roster import Roster
from sflam.serve.web_server import Listen
from tests.reviews import write_reviews
from tests.serve.network import Process, network

TINY = (
    "fleet.devices=3",
    "learn.rounds=1",
    "learn.local_steps=2",
    "learn.batch=8",
    "learn.device=cpu",
    "learn.evaluate_every=0",
    "model.rank=2",
)


def trained(folder, *settings):
    """Return the folder of a run."""
    sflam.train(config.load(None, [*TINY, *settings]), folder)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the bundled model whose devices keep one, two and no blocks."""
    return trained(tmp_path_factory.mktemp("answers") / "run", "fleet.cuts=[1, 2, 0]")


@contextmanager
def answering(run, tmp_path, **options):
    """Yield a server on this machine, and a way to it as one of its devices."""
    roster = Roster(tmp_path / "devices.json")
    tokens = [roster.enrol(f"device-{device}") for device in range(4)]
    server = AnswerServer(run, Listen(port=0), tmp_path / "devices.json", device="cpu", **options)
    server.start()
    links = []

    def link(device, token=""):
        links.append(Link(f"http://127.0.0.1:{server.port}", token or tokens[device]))
        return links[-1]

    try:
        yield server, link
    finally:
        for each in links:
            each.close()
        server.stop()


@pytest.mark.parametrize("device", [0, 1, 2])
def test_floats_predict_what_the_whole_model_does(run, tmp_path, device):
    whole = sflam.predict(run)
    with answering(run, tmp_path, bits=32) as (server, link):
        halves = predict_split(link(device), "digits", tmp_path / "device", device="cpu")
        assert server.predicted == len(whole.probabilities)
    assert np.abs(halves.probabilities - whole.probabilities).max() < 1e-5
    assert halves.classes == whole.classes and np.array_equal(halves.labels, whole.labels)
    assert halves.accuracy == whole.accuracy and abs(halves.loss - whole.loss) < 1e-5


def by_hand(run, device, bits):
    """Return the probabilities of the two halves in this process, with what crosses quantized."""
    folder = RunFolder(run)
    job = folder.read_job()
    dataset, _ = load_for_prediction(job.data, job.seed, preprocessor_of(job))
    backbone, model, _ = saved_model(folder, job, "image", 10)
    cut = job.placements[device].cut
    first, second = (half.eval() for half in split(backbone, model, [cut], labels=job.model.labels))
    exchange = Exchange(method_of(job).scheme(job.quant), job.seed, {device: (bits, bits)})
    examples, rows = examples_of(dataset, backbone), []
    for number, indices in enumerate(examples.in_length_order(ROWS)):
        batch = examples.take(indices)
        layout = Rows((0,), (len(batch),))
        with torch.no_grad():
            hidden = first(batch.inputs, batch.lengths, cut, layout)
            message = exchange.step_message(Position(0, number, device), hidden, batch, labels=False)
            came = exchange.receive_step(decode(encode(message)), cut, torch.device("cpu"))
            last = second([Arrival(cut, came.hidden, layout)], None)
            if job.model.labels == "device":
                back = exchange.token_message(Position(0, number, device), HEAD_DOWN, last, None)
                tokens = decode(encode(back)).tokens
                last = first.finish(
                    exchange.receive_tokens(tokens, len(batch), None, last.device), None, layout
                )
            rows.append(last)
    return torch.cat(rows).double().softmax(-1).numpy()


@pytest.mark.parametrize(("bits", "asked"), [(8, None), (3, 3)])
def test_quantized_predictions_are_those_of_both_halves_here_bit_for_bit(run, tmp_path, bits, asked):
    with answering(run, tmp_path, bits=asked) as (_, link):
        found = predict_split(link(1), "digits", tmp_path / "device", device="cpu")
    assert np.array_equal(found.probabilities, by_hand(run, 1, bits))
    assert any(
        "2 blocks here, the rest at the server; 0." in note and f"{bits} bits" in note for note in found.notes
    )


def test_texts_of_unlike_lengths(tmp_path):
    write_reviews(tmp_path)
    reviews = tmp_path / "reviews.csv"
    text = (f"model.name={tmp_path / 'bert'}", f"data.name={reviews}", "data.partition=iid")
    run = trained(tmp_path / "run", *text)
    whole = sflam.predict(run, reviews)
    with answering(run, tmp_path, bits=32) as (_, link):
        halves = predict_split(link(0), str(reviews), tmp_path / "device", device="cpu")
    assert np.abs(halves.probabilities - whole.probabilities).max() < 1e-5


@pytest.fixture(scope="module", params=["lora", "lora+head"])
def at_home(request, tmp_path_factory):
    """A run whose head and labels stayed on its devices, the head as it was or trained."""
    folder = tmp_path_factory.mktemp("at-home") / "run"
    return trained(folder, "fleet.cuts=[1, 2, 0]", "model.labels=device", f"model.trainable={request.param}")


@pytest.mark.parametrize("device", [0, 2])
def test_with_labels_at_home_the_head_is_here_and_predicts_the_same(at_home, tmp_path, device):
    whole = sflam.predict(at_home)
    with answering(at_home, tmp_path, bits=32) as (server, link):
        assert not server.ingress.counts["predicted_rows"]
        halves = predict_split(link(device), "digits", tmp_path / "device", device="cpu")
        assert server.predicted == len(whole.probabilities)
    assert np.abs(halves.probabilities - whole.probabilities).max() < 1e-5
    assert any("the head here too" in note and "MB came back" in note for note in halves.notes)


def test_with_labels_at_home_both_ways_are_quantized_bit_for_bit(at_home, tmp_path):
    with answering(at_home, tmp_path, bits=4) as (_, link):
        found = predict_split(link(1), "digits", tmp_path / "device", device="cpu")
    assert np.array_equal(found.probabilities, by_hand(at_home, 1, 4))


@pytest.mark.parametrize("answer", ["shorter", "another's"])
def test_an_answer_of_another_message_is_one_line(at_home, tmp_path, monkeypatch, answer):
    known = TrunkHalf.answer
    earlier = []

    def wrong(trunk, message):
        found = known(trunk, message)
        earlier.append(found)
        return found[:-9] if answer == "shorter" else earlier[0]

    monkeypatch.setattr(TrunkHalf, "answer", wrong)
    with answering(at_home, tmp_path) as (_, link), pytest.raises(SflamError, match="cannot be read"):
        predict_split(link(1), "digits", tmp_path / "device", device="cpu")


def test_samples_without_labels_and_a_guard(tmp_path):
    run = trained(tmp_path / "run", "privacy.clip=1.0", "privacy.noise=0.1")
    np.savez(tmp_path / "new.npz", images=np.random.default_rng(0).random((3, 8, 8)) * 16)
    with answering(run, tmp_path) as (_, link):
        first, second = (predict_split(link(0), str(tmp_path / "new.npz"), tmp_path / "d") for _ in range(2))
    assert first.labels is None and first.loss is None and GUARDED in first.notes
    assert not np.array_equal(
        first.probabilities, second.probabilities
    )  # noise that came before hides nothing twice


def test_what_it_refuses(run, tmp_path):
    with answering(run, tmp_path) as (server, link):
        for path, status in (
            ("/v1/predictions/0/0", 422),
            (f"/v1/predictions/0/{ROWS + 1}", 422),
            ("/v1/predictions/0/x", 404),
            ("/v1/predictions/0/4", 422),  # a body of another size
            ("/v1/rounds/0/0/steps/0", 404),
        ):
            with pytest.raises(Refused) as refused:
                link(0).call("POST", path, b"short")
            assert refused.value.status == status, path
        with pytest.raises(Refused) as stranger:
            link(0, "0" * 43).json("GET", "/v1/job")
        assert stranger.value.status == 401
        with pytest.raises(Refused, match="enrolled, but this job has 3 devices"):
            link(3).json("GET", "/v1/job")
        body = bytearray(server.ingress.contracts[0].forward_bytes(4, 4 * 17, lengths=False))
        with pytest.raises(Refused) as garbage:
            link(0).call("POST", "/v1/predictions/0/4", body)
        assert garbage.value.status == 422
        assert server.predicted == 0
        plain = http.client.HTTPConnection("127.0.0.1", server.port)
        plain.request("GET", "/healthz")
        assert json.loads(plain.getresponse().read()) == {"phase": "answers", "ok": True}
        plain.close()
    log = run / "answers.jsonl"
    assert "refused" in log.read_text() and str(log) not in {
        str(each.resolve()) for each in Path("/proc/self/fd").iterdir()
    }


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (("model.labels=device", "learn.personal=head"), "has a head of its own, which no server knows"),
        (("learn.method=fedlora",), "cuts no model"),
    ],
)
def test_runs_without_two_halves_are_refused(tmp_path, settings, reason):
    run = trained(tmp_path / "run", *settings)
    with pytest.raises(SflamError, match=reason):
        AnswerServer(run, Listen(port=0), tmp_path / "devices.json")


def test_the_commands(run, tmp_path):
    whole = sflam.predict(run)
    with network(tmp_path, 3) as net:
        certs = net.folder / "certs"
        server = Process(
            tmp_path, "answer", run, "--port", 0, "--roster", net.folder / "devices.json", "--bits", 32,
            "--cert", certs / "server.pem", "--key", certs / "server.key",
        )  # fmt: skip
        net.started.append(server)
        port = server.wait_for(r"listening on https://127.0.0.1:(\d+)")[1]
        asking = Process(
            tmp_path, "predict", "--split", f"127.0.0.1:{port}", "--token-file", net.folder / "token-1", "--ca",
            certs / "ca.pem", "--data", "digits", "--folder", tmp_path / "device", "--out", tmp_path / "found.csv",
        )  # fmt: skip
        net.started.append(asking)
        assert asking.wait() == 0, asking.lines
        server.kill(signal.SIGTERM)
        assert (
            server.wait(20) == 0
            and server.lines[-1] == f"stopped; {len(whole.predicted)} samples were predicted"
        )
    lines = (tmp_path / "found.csv").read_text().splitlines()
    assert len(lines) == 1 + len(whole.predicted)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict"], "give the folder of a finished run, or --split SERVER"),
        (["predict", "--split", "localhost", "--data", "x.npz"], "give --data and --token-file too"),
        (["predict", "run", "--split", "localhost"], "leave out the run's folder"),
        (["predict", "run", "--token-file", "t"], "are for a server; give --split too"),
        (["answer", "nowhere"], "nowhere"),
    ],
)
def test_bad_use(cli, arguments, message):
    out = cli(*arguments)
    assert out.code == 2 and any(message in line for line in out.err), out
