"""The page and its routes: off unless asked for, nothing from elsewhere, a token for all but the page itself."""

from __future__ import annotations

import http.client
import io
import json
import re
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import urlsplit

import numpy as np
import pytest

from sflam import config
from sflam.codec.quantizers import QUANTIZERS
from sflam.data.partition import share_out
from sflam.data.sources import load as load_data
from sflam.errors import ServeError
from sflam.link.needs import needs_of
from sflam.run import start
from sflam.serve.announcement import bundle
from sflam.serve.app import application
from sflam.serve.contracts import contracts_of
from sflam.serve.dispatch import Dispatch
from sflam.serve.ingress import Bounds, Ingress
from sflam.serve.join_page import join_page
from sflam.serve.roster import Roster
from sflam.serve.session import Session
from sflam.serve.web_server import Listen, WebServer
from sflam.web.pages import HEADERS, MEDIA, join_link, page_files
from tests.serve.test_bad_use import assert_problem
from tests.serve.test_hostile import TERMS
from tests.web.node import STATIC

DIGITS = ("fleet.devices=3", "learn.device=cpu", "learn.rounds=1")


class Routes:
    """A server of these routes, and the tokens of its three devices."""

    def __init__(self, folder, contracts, page=None):
        roster = Roster(folder / "devices.json")
        tokens = [roster.enrol(f"device-{device}") for device in range(3)]
        self.headers = [{"Authorization": f"Bearer {token}"} for token in tokens]
        dispatch = Dispatch(Session(3))
        ingress = Ingress(dispatch, roster, contracts, lambda device: {}, {}, Bounds(1 << 20, 1 << 20))
        routes = page.routes(ingress) if page else []
        self.server = WebServer(application(ingress, None, routes), dispatch, Listen(port=0))

    def get(self, path, headers=None):
        """Return status, headers and body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, answer.headers, body

    def json(self, path, device):
        """Return the JSON that a device is answered with."""
        status, _, body = self.get(path, self.headers[device])
        assert status == 200, body
        return json.loads(body)


@contextmanager
def listening(folder, contracts, page=None):
    """Yield the routes, and stop the server."""
    routes = Routes(folder, contracts, page)
    routes.server.start()
    try:
        yield routes
    finally:
        routes.server.stop()


@pytest.fixture(scope="module")
def assembly(tmp_path_factory):
    return start.start(config.load(None, DIGITS), tmp_path_factory.mktemp("page") / "run").assembly


@pytest.fixture(scope="module")
def served(assembly, tmp_path_factory):
    """The routes of the default job's page."""
    folder = tmp_path_factory.mktemp("served")
    bundle(assembly, assembly.halves, folder)
    contracts = contracts_of(assembly, assembly.halves)
    with listening(folder, contracts, join_page(assembly, folder, contracts)) as routes:
        yield routes


def test_the_page_and_every_file_it_names(served):
    for name, file in page_files().items():
        status, headers, body = served.get(f"/{name}")
        assert (status, body, headers["content-type"]) == (200, file.body, file.media), name
        assert {key: headers[key] for key in HEADERS} == HEADERS


def test_nothing_comes_from_elsewhere_and_every_import_is_there():
    names = {path for path in STATIC.rglob("*") if path.suffix in MEDIA}
    assert len(names) == len(page_files()) - 1 > 20
    for path in [*names, STATIC.parent / "join.html"]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(?:src|href|url|import)\W{1,3}(?:https?:)?//", text), path
        for inner in re.findall(r'(?:from|import|URL\()\s*"(\.[^"]+\.js|worker\.js)"', text):
            assert (path.parent / inner).resolve() in names, (path, inner)
    html = (STATIC.parent / "join.html").read_text(encoding="utf-8")
    assert "style=" not in html and "<style" not in html and "onclick" not in html
    assert html.count("<script") == html.count('<script type="module" src="join/static/') == 1
    assert "unsafe-inline" not in HEADERS["Content-Security-Policy"]


@pytest.mark.parametrize(
    "path", ["/join/static/../pages.py", "/join/static/%2e%2e/pages.py", "/join/static/", "/join/x"]
)
def test_no_other_file_is_served(served, path):
    assert served.get(path)[0] == 404


def test_what_is_not_the_page_needs_a_token(served):
    for path in ("/join/job", "/join/share"):
        assert served.get(path)[0] == 401
        assert served.get(path, {"Authorization": "Bearer sflam_x"})[0] == 401
        assert served.get(path, served.headers[0])[0] == 200


def test_what_the_page_is_sent_of_the_job(served, assembly):
    found, job = served.json("/join/job", 1), assembly.job
    assert found["needs"] == needs_of(job) | {"quant.scheme": "uniform"}
    assert found["seed"] == str(job.seed) and found["drawn"] == [8, 8] and found["text"] is None
    assert found["learn"]["lr"] == job.learn.practice.lr > 0 == job.learn.lr
    assert found["learn"]["batch"] == job.learn.batch and found["image"]["size"] == 16
    assert found["share"] == len(assembly.parts[1])


def test_a_browser_answers_for_every_setting_that_changes_what_a_device_computes(assembly):
    text = (STATIC / "link" / "offers.js").read_text(encoding="utf-8")
    offers = dict(re.findall(r'^  "?([\w.]+)"?: (\[.*\]),$', text, re.MULTILINE))
    needs = needs_of(assembly.job) | {"quant.scheme": assembly.job.quant.scheme}
    assert offers.keys() == needs.keys()
    assert all(value in json.loads(offers[key]) for key, value in needs.items())
    assert set(json.loads(offers["quant.scheme"])) == set(QUANTIZERS)


def test_a_share_is_the_devices_own(served, assembly):
    job = assembly.job
    train = load_data(job.data, job.seed).train
    parts = share_out(job.data, train, 3, job.seed).parts
    for device, headers in enumerate(served.headers):
        arrays = np.load(io.BytesIO(served.get("/join/share", headers)[2]), allow_pickle=False)
        assert np.array_equal(arrays["image"], train.inputs[parts[device]])
        assert arrays["label"].tolist() == [train.classes[label] for label in train.labels[parts[device]]]


def test_data_of_its_own_is_never_given_out(assembly, tmp_path):
    bundle(assembly, assembly.halves, tmp_path)
    own = replace(assembly, job=replace(assembly.job, data=replace(assembly.job.data, name="mine.npz")))
    contracts = contracts_of(assembly, assembly.halves)
    with listening(tmp_path, contracts, join_page(own, tmp_path, contracts)) as routes:
        assert routes.get("/join/share", routes.headers[0])[0] == 404
        found = routes.json("/join/job", 0)
        assert found["share"] is None and found["drawn"] is None


def test_it_is_off_unless_asked_for(tmp_path):
    with listening(tmp_path, {0: TERMS}) as routes:
        for path in ("/join", "/join/job", "/join/share", "/join/static/page.js"):
            assert routes.get(path, routes.headers[0])[0] == 404


def test_the_link_of_a_device(cli, tmp_path):
    done = cli("enrol", "phone", "--roster", tmp_path / "devices.json", "--link", "my-laptop.local")
    [link] = done.out
    url = urlsplit(link)
    assert (url.hostname, url.port, url.path) == ("my-laptop.local", 8443, "/join")
    assert url.fragment.startswith("token=sflam_") and not url.query
    assert join_link("http://[::1]:90", "t") == "http://[::1]:90/join#token=t"
    assert join_link("https://host/sflam", "t") == "https://host:443/sflam/join#token=t"


def test_a_wrong_address_makes_no_token(cli, tmp_path):
    done = cli("enrol", "phone", "--roster", tmp_path / "devices.json", "--link", "https://x/y?z")
    assert_problem(done, "write HOST, HOST:PORT")
    assert not (tmp_path / "devices.json").exists()
    with pytest.raises(ServeError):
        join_link("ftp://x", "")


def test_browsers_need_graphs(cli, tmp_path):
    done = cli("serve", "--browser", "--no-graphs", "--out", tmp_path / "run")
    assert_problem(done, "--browser needs the graphs")
    assert not (tmp_path / "run").exists()
