"""A server that is not to be trusted: a device reads what its user named, writes in its folder, and takes no more than
was agreed."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

from sflam import config
from sflam.link.https_client import Link
from sflam.link.job import described
from sflam.serve import serve as serving
from sflam.serve.app import application
from sflam.serve.dispatch import Dispatch
from sflam.serve.ingress import Bounds, Ingress
from sflam.serve.roster import Roster
from sflam.serve.session import Session
from sflam.serve.web_server import Listen, WebServer


def assert_problem(done, *texts):
    errors = [line for line in done.err if line.startswith("sflam: ")]
    assert done.code == 2 and len(errors) == 1, done.err
    assert all(text in errors[0] for text in texts), errors


@pytest.fixture(scope="module")
def honest(small, tmp_path_factory):
    """What an honest server says of a job, its contract, and the folder of its files."""
    folder = tmp_path_factory.mktemp("honest")
    kept = []
    with pytest.MonkeyPatch.context() as patch:
        real = serving.describe
        patch.setattr(serving, "describe", lambda *parts: kept.append(real(*parts)) or kept[0])
        how = serving.Serving(listen=Listen(port=0), roster=folder / "devices.json", graphs=False)
        job = config.load(None, [*small, "fleet.devices=1", "data.partition=iid"])
        made = serving.start(job, folder / "run", how)
    made.run._held.release()
    made.server._socket.close()
    return kept[0](0), made.run.fleet.contracts[0], folder / "run/served"


@pytest.fixture
def served(honest, tmp_path, monkeypatch):
    """A function that starts a server whose description of the job, and of the job file, is changed."""
    found, contract, folder = honest
    started = []
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    def start(change=lambda found: None):
        told = copy.deepcopy(found)
        change(told)
        token, roster = tmp_path / "token", Roster(tmp_path / "devices.json")
        token.write_text(roster.enrol("pi"))
        dispatch = Dispatch(Session(1))
        files = {path.name: path for path in folder.iterdir()}
        ingress = Ingress(dispatch, roster, {0: contract}, lambda _: told, files, Bounds(1 << 24, 1 << 24))
        server = WebServer(application(ingress), dispatch, Listen(port=0))
        server.start()
        started.append((dispatch, server))
        return f"http://127.0.0.1:{server.port}", "--token-file", token, "--folder", tmp_path / "device"

    yield start
    for dispatch, server in started:
        dispatch.stop()
        server.stop()


def toml(old, new):
    def change(found):
        assert old in found["job"], found["job"]
        found["job"] = found["job"].replace(old, new)

    return change


def fetched(tmp_path):
    folder = tmp_path / "device" / "model"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@pytest.mark.parametrize("command", ["join", "device"])
def test_a_file_that_the_server_names_is_not_read(cli, served, tmp_path, command):
    draw = np.random.default_rng(0)
    np.savez("digits.npz", image=draw.integers(0, 255, (40, 8, 8), dtype=np.uint8), label=np.arange(40) % 2)
    server = served()  # whose data.name is digits.npz, as that of the device's working directory
    for given in ([], ["--share"]):
        assert_problem(cli(command, *server, *given), "no file that a server names", "--data")
    assert fetched(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [("digits", "with --share its share"), ("/etc/passwd", "no file that a server names"),
     ("~/photos", "no file that a server names"), ("../x.csv", "no file that a server names")],
)  # fmt: skip
def test_what_is_trained_on_is_the_users_choice(cli, served, tmp_path, name, text):
    server = served(toml('name = "digits.npz"', f'name = "{name}"'))
    assert_problem(cli("join", *server), text)
    assert fetched(tmp_path) == []


def test_a_servers_list_of_rows_is_not_read(cli, served, tmp_path, room):
    server = served(toml('partition = "iid"', 'partition = "file"'))
    assert_problem(
        cli("join", *server, "--data", room / "digits.npz", "--share"),
        "by a file of the server",
        "does not read",
    )


def test_the_column_of_the_labels_is_the_users_choice(cli, served, tmp_path, room):
    server = served(toml('label = "label"', 'label = "diagnosis"'))
    assert_problem(cli("join", *server, "--data", room / "digits.npz"), "'diagnosis'", "--label")
    assert fetched(tmp_path) == []


@pytest.mark.parametrize("command", ["join", "device"])
@pytest.mark.parametrize(
    ("change", "options", "texts"),
    [
        (toml("rank = 2", "rank = 50000000"), (), ("of memory", "model.rank 50000000")),
        (lambda found: found.update(trained=10**12), (), ("of memory", "--most-memory")),
        (lambda found: found.update(body=10**15), (), ("of memory",)),
        (lambda found: found["sizes"].update({"config.json": 16 << 50}), (), ("--most-disk",)),
        (lambda found: None, ("--most-disk", "0.001"), ("0.0 MB are allowed", "--most-disk")),
        (lambda found: None, ("--most-memory", "0.01"), ("0.0 MB are allowed", "--most-memory")),
        (lambda found: found.update(sizes={"../x": 1}), (), ("names a file '../x'",)),
        (lambda found: found.update(trained=-1), (), ("description of the job",)),
        (lambda found: found.update(files={"/etc/passwd": "0" * 64}), (), ("names a file '/etc/passwd'",)),
    ],
)
def test_more_than_the_device_gives_is_refused_before_anything_is_fetched(
    cli, served, tmp_path, room, command, change, options, texts
):
    server = served(change)
    assert_problem(cli(command, *server, "--data", room / "digits.npz", *options), *texts)
    assert fetched(tmp_path) == []


def test_a_file_larger_than_announced_is_not_taken(cli, served, tmp_path, room):
    def smaller(found):
        found["sizes"] = {name: min(size, 40) for name, size in found["sizes"].items()}

    assert_problem(cli("join", *served(smaller), "--data", room / "digits.npz"), "more than 40 bytes")
    assert all((tmp_path / "device/model" / name).stat().st_size <= 40 for name in fetched(tmp_path))


@pytest.mark.parametrize("link", ["model", "data", "state.safetensors", "job.toml", "model/config.json"])
def test_no_link_leads_out_of_the_devices_folder(cli, served, tmp_path, room, link):
    outside = tmp_path / "outside"
    outside.mkdir()
    path = tmp_path / "device" / link
    path.parent.mkdir(parents=True)
    path.symlink_to(outside)
    assert_problem(cli("join", *served(), "--data", room / "digits.npz"), "is a link", "--folder")
    assert list(outside.iterdir()) == []


def test_a_servers_adapter_and_model_are_no_paths_here(tmp_path, served, cli, room):
    server = served(toml('adapter = ""', 'adapter = "/etc/secret"'))
    link = Link(server[0], Path(server[2]).read_text())
    job = described(link).settings(tmp_path / "device")
    link.close()
    assert (job.model.name, job.model.adapter, job.plugins) == ("served", "", ())
