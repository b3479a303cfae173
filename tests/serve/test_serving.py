"""What cannot be served is one line; a device's own data meets the job's classes; TLS trusts whom it should."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

import sflam
from sflam import config
from sflam.data.partition import share_out
from sflam.data.sources import load
from sflam.errors import ConfigError, DataError, Refused, ServeError
from sflam.learn import checkpoint
from sflam.link.https_client import Link
from sflam.link.job import fetch
from sflam.serve import serve
from sflam.serve.app import application
from sflam.serve.certificates import make_certificates
from sflam.serve.dispatch import Dispatch
from sflam.serve.ingress import Bounds, Ingress
from sflam.serve.join import samples
from sflam.serve.roster import Roster
from sflam.serve.serve import Serving
from sflam.serve.session import Session
from sflam.serve.trunks.trunk_roster import TrunkRoster
from sflam.serve.web_server import Attempts, Listen, WebServer
from tests.serve.test_hostile import TERMS


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["learn.device_half=averaged"], "learn.device_half"),
        (["learn.local=scaffold"], "learn.local"),
        (["learn.method=central"], "learn.method"),
        (["learn.method=sfl-v2", "model.labels=device"], "learn.server_update"),
    ],
)
def test_what_cannot_be_served_is_reported(tmp_path, settings, message):
    serving = Serving(listen=Listen(), roster=tmp_path / "devices.json")
    with pytest.raises(ConfigError, match=message):
        serving.check(config.load(None, settings))


def test_a_secure_sum_has_a_quorum_of_three(tmp_path):
    sums = ["privacy.secure_aggregation=true", "quant.adapters_scale=common", "fleet.devices=3"]
    serving = Serving(listen=Listen(), roster=tmp_path / "devices.json")
    assert serving.fewest(config.load(None, sums)) == 3 and serving.fewest(config.load(None, sums[2:])) == 2
    for job, own, named in (
        (sums, {"quorum": 2}, "--quorum"),
        ([*sums, "fleet.quorum=2"], {}, "fleet.quorum"),
    ):
        with pytest.raises(ConfigError) as found:
            replace(serving, **own).check(config.load(None, job))
        (problem,) = found.value.problems
        assert problem.startswith(f"{named} is 2; privacy.secure_aggregation = true takes 3 devices")
    replace(serving, quorum=0).check(config.load(None, sums))


def test_a_quorum_beyond_the_fleet_is_refused(tmp_path):
    serving = Serving(listen=Listen(), roster=tmp_path / "devices.json", quorum=11, deadline=0)
    with pytest.raises(ConfigError) as found:
        serving.check(config.load())
    assert [problem.split()[0] for problem in found.value.problems] == ["--quorum", "--deadline"]


def test_the_command_line_says_it_in_one_line(cli, tmp_path):
    for arguments, message in (
        (["serve", "--set", "learn.local=scaffold"], "learn.local"),
        (["serve", "--host", "0.0.0.0"], "in the clear"),
        (["serve", "--resume", tmp_path, "--out", tmp_path], "--resume continues"),
        (["join", "host", "--token-file", tmp_path / "none"], "token file"),
        (["enrol", "a b", "--roster", tmp_path / "r.json"], "device name"),
        (["enrol", "pi", "--revoke", "--roster", tmp_path / "r.json"], "no device 'pi'"),
        (["certs", "--client", "ca", "--out", tmp_path / "certs"], "client name"),
    ):
        done = cli(*arguments)
        assert done.code == 2 and len(done.err) == 1 and message in done.err[0], done


def test_tokens_are_printed_alone(cli, tmp_path):
    done = cli("enrol", "pi", "--roster", tmp_path / "r.json")
    assert done.code == 0 and [line.startswith("sflam_") for line in done.out] == [True]


def test_a_devices_own_data_takes_the_jobs_numbers_of_classes(tmp_path):
    draw = np.random.default_rng(0)
    names = np.array(["cat", "ant"] * 10)
    np.savez(tmp_path / "own.npz", image=draw.integers(0, 255, (20, 8, 8), dtype=np.uint8), label=names)
    job, path = config.load(), str(tmp_path / "own.npz")
    dataset, own = samples(job, path, 0, ["bee", "cat", "ant"], "", "", print)
    assert (
        len(own) == len(dataset)
        and set(dataset.labels) == {1, 2}
        and dataset.classes == ("bee", "cat", "ant")
    )
    with pytest.raises(DataError, match="'cat', which the job does not know"):
        samples(job, path, 0, ["bee", "ant"], "", "", print)


def test_without_data_a_device_takes_its_share_of_the_jobs():
    job = config.load(None, ["fleet.devices=3"])
    shares = [samples(job, None, device, [], "", "", print, share=True)[1] for device in range(3)]
    assert len(np.unique(np.concatenate(shares))) == sum(map(len, shares))


def test_of_the_jobs_data_the_validation_part_is_nobodys_and_of_a_devices_own_nothing_is_held_out(tmp_path):
    job = config.load(None, ["fleet.devices=3", "learn.keep=best", "data.partition=iid"])
    parts = load(job.samples, job.seed)
    shares = [samples(job, None, device, [], "", "", print, share=True) for device in range(3)]
    assert sum(len(own) for _, own in shares) == len(parts.train) < len(load(job.data, job.seed).train)
    assert all(np.array_equal(dataset.inputs, parts.train.inputs) for dataset, _ in shares)
    draw = np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "own.npz", image=draw, label=np.array(["a", "b"] * 20))
    held, plain = (
        samples(config.load(None, keys), str(tmp_path / "own.npz"), 0, ["a", "b"], "", "", print)[1]
        for keys in (["learn.keep=best", "data.validation=0.5"], [])
    )
    assert len(held) == len(plain)


def test_a_share_is_flipped_and_noisy_as_in_a_simulation():
    chosen = ["fleet.devices=3", "data.flipped=0.5", "data.flipped_devices=[1]", "data.noise=0.1"]
    job = config.load(None, [*chosen, "data.partition=clusters"])
    shared = share_out(job.data, load(job.data, job.seed).train, 3, job.seed)
    for device in range(3):
        dataset, own = samples(job, None, device, [], "", "", print, share=True)
        assert np.array_equal(own, shared.parts[device])
        assert np.array_equal(dataset.labels[own], shared.train.labels[own])
        assert np.array_equal(dataset.inputs[own], shared.train.inputs[own])


def test_what_a_device_brings_is_not_shared_out(tmp_path):
    kinds = np.array([0, 1] * 4, np.uint8)
    np.savez(tmp_path / "own.npz", image=kinds.reshape(-1, 1, 1), label=np.array(["a", "b"] * 4))
    job = config.load(None, ["data.partition=column", "data.column=writer", "data.flipped=1"])
    dataset, own = samples(job, str(tmp_path / "own.npz"), 0, ["a", "b"], "", "", print)
    assert len(own) == len(dataset) == 6
    assert np.array_equal(dataset.labels, dataset.inputs.reshape(-1))


def test_attempts_grow_over_restarts_and_the_run_keeps_its_name(tmp_path):
    first = Attempts(tmp_path / "attempt")
    assert [first(), first(), Attempts(tmp_path / "attempt")()] == [1, 2, 3]
    assert first.run_id() == Attempts(tmp_path / "attempt").run_id()
    (tmp_path / "attempt").write_text("x")
    with pytest.raises(ServeError, match="cannot be used"):
        first()


@pytest.fixture
def secure(tmp_path):
    """A server that asks devices for certificates."""
    certs = tmp_path / "certs"
    make_certificates(certs, ["127.0.0.1"], ["pi"])
    make_certificates(tmp_path / "other", ["127.0.0.1"], ["pi"])
    (tmp_path / "file").write_bytes(b"content")
    token = Roster(tmp_path / "devices.json").enrol("pi")
    dispatch = Dispatch(Session(1))
    ingress = Ingress(
        dispatch, Roster(tmp_path / "devices.json"), {0: replace(TERMS)}, lambda _: {}, {"file": tmp_path / "file"},
        Bounds(1 << 20, 1 << 20),
    )  # fmt: skip
    listen = Listen(
        port=0, certificate=certs / "server.pem", key=certs / "server.key", client_ca=certs / "ca.pem"
    )
    server = WebServer(application(ingress), dispatch, listen)
    server.start()
    yield server, token, tmp_path
    dispatch.stop()
    server.stop()


def linked(secure, ca="certs", own="certs", **options):
    server, token, folder = secure
    certificate = {"certificate": folder / own / "pi.pem", "key": folder / own / "pi.key"} if own else {}
    address = f"127.0.0.1:{server.port}"
    return Link(address, token, ca=folder / ca / "ca.pem", patience=0.3, **certificate, **options)


def test_both_sides_show_certificates(secure):
    link = linked(secure)
    assert link.call("GET", "/v1/files/file") == b"content"
    link.close()
    with pytest.raises(ServeError, match="is not trusted"):
        linked(secure, ca="other").call("GET", "/v1/job")
    for own in (None, "other"):
        with pytest.raises(ServeError, match="no answer"):
            linked(secure, own=own).call("GET", "/v1/job")


def test_a_file_that_is_not_what_was_announced_is_refused(secure, tmp_path):
    link, cache = linked(secure), tmp_path / "cache"
    cache.mkdir()
    with pytest.raises(ServeError, match="came damaged"):
        fetch(link, cache, "file", "0" * 64)
    with pytest.raises(ServeError, match="names a file"):
        fetch(link, cache, "../file", "0" * 64)
    with pytest.raises(Refused, match="no such file"):
        fetch(link, cache, "other", "0" * 64)
    assert list(cache.iterdir()) == []
    link.close()


def test_a_device_reads_no_more_than_was_agreed(secure):
    link = linked(secure)
    assert link.call("GET", "/v1/files/file", most=7) == b"content"
    with pytest.raises(ServeError, match="more than 6 bytes"):
        link.call("GET", "/v1/files/file", most=6)
    link.close()


def test_a_waiting_worker_wakes_when_the_server_stops():
    dispatch = Dispatch(Session(1))
    dispatch.session.hello(0, 4, dispatch.clock())
    dispatch.open(0, 1, {0: 1}, 1000.0, {})
    found = []
    waiting = threading.Thread(target=lambda: found.append(dispatch.collect()))
    waiting.start()
    dispatch.stop()
    waiting.join(5)
    assert found == [[]]


def test_a_resumed_server_knows_what_devices_reported_and_who_sits_out(small, tmp_path):
    run = sflam.start(config.load(None, [*small, "fleet.devices=2", "learn.rounds=3"]), tmp_path / "run")
    next(run.rounds())
    run._held.release()
    saved = checkpoint.load(run.folder.checkpoints)
    quarantine = {"strikes": {1: 2}, "until": {1: 5}}
    saved["fleet"] |= {"reported": {0: 7, 1: 9}, "quarantine": quarantine}
    checkpoint.save(run.folder.checkpoints, saved)
    made = serve.resume(
        tmp_path / "run", Serving(listen=Listen(port=0), roster=tmp_path / "devices.json", graphs=False)
    )
    made.run._held.release()
    made.server._socket.close()
    made.event_log.close()
    assert made.fleet.counted_samples() == {0: 7, 1: 9}
    assert made.fleet.state()["quarantine"] == quarantine


def test_what_a_killed_server_left_half_written_is_no_file_of_the_job(small, tmp_path):
    """Devices refuse a job that names such a file, and a job whose files are others is another job."""
    settings = [*small, "fleet.devices=2", "fleet.servers=[0, 1]", "learn.rounds=3"]
    run = sflam.start(config.load(None, settings), tmp_path / "run")
    next(run.rounds())
    run._held.release()
    for name in ("edge-a", "edge-b"):
        TrunkRoster(tmp_path / "servers.json").enrol(name)
    roster, servers = tmp_path / "devices.json", tmp_path / "servers.json"
    serving = Serving(listen=Listen(port=0), roster=roster, servers=servers, graphs=False)
    found = []
    for left in (False, True):
        for name in ("attempt", "cuts.json", "association.json", "trunk/contracts.json") if left else ():
            path = tmp_path / "run/served" / name
            path.with_name(f".{path.name}.tmp").write_bytes(b"1")
        made = serve.resume(tmp_path / "run", serving)
        made.run._held.release()
        made.server._socket.close()
        made.event_log.close()
        trunk_files = sorted(path.name for path in (tmp_path / "run/served/trunk").iterdir())
        found.append((made.ingress.job(0), sorted(made.ingress.files), trunk_files))
    assert found[1] == found[0] and not any(name.startswith(".") for name in found[0][2])
