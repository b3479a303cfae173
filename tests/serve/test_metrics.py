"""What monitoring reads: a bounded number of series, names for operators alone, a dashboard that asks for no others."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from sflam.link.device_report import DeviceReport
from sflam.records.history import RoundRecord
from sflam.serve.admission import Admission
from sflam.serve.device_metrics import HELP, device_metrics, escaped
from sflam.serve.live_page import ProgressBoard
from sflam.serve.metrics import metrics_text
from sflam.serve.orders import Orders
from tests.serve.test_hostile import GOOD, Site

DASHBOARD = Path(__file__).parents[2] / "examples" / "two-laptops" / "grafana.json"
SERIES = re.compile(r'^(sflam_[a-z_]+)(?:\{([a-z]+)="((?:[^"\\\n]|\\.)*)"\})? (\S+)$')
REPORT = DeviceReport(steps=3, memory=1 << 20, temperature=50.0, throttled=False, battery=0.5)


@pytest.fixture
def site(tmp_path):
    with Site(tmp_path) as made:
        made.operator = made.operators.add("prometheus", watches=True)
        yield made


def read(text):
    """Return (name, label, its value, value) of every series; raises where a line is none."""
    rows = [line for line in text.splitlines() if not line.startswith("#")]
    found = [SERIES.fullmatch(row) for row in rows]
    assert all(found), rows
    return [(row[1], row[2], row[3], float(row[4])) for row in found]


def scraped(site, token=None):
    status, body = site.ask("GET", "/metrics", None, Authorization=token and f"Bearer {token}")
    assert status == 200
    return read(body.decode())


def of_devices(rows):
    return {(name, value): number for name, label, value, number in rows if label == "device"}


def test_strangers_see_numbers_and_operators_names(site):
    site.ask()
    for token, names in ((None, {"0", "1"}), (site.token, {"0", "1"}), (site.operator, {"a", "b", "c"})):
        found = of_devices(scraped(site, token))
        assert {device for _, device in found} == names, "those who came, and for operators those enrolled"
    assert found["sflam_device_exchanges_done", "a"] == 1 and found["sflam_device_exchanges", "a"] == 3
    assert found["sflam_device_round_bytes_up", "a"] == len(GOOD)
    assert found["sflam_device_at_work", "a"] == 1 and found["sflam_device_present", "c"] == 0
    for wrong in ("sflam-operator_wrong", site.operator[:-1]):
        assert site.ask("GET", "/metrics", None, token=wrong)[0] == 401


def test_what_an_operator_ordered_shows(site):
    site.operation.drain("alice", ["b"])
    site.operation.pause("alice")
    rows = scraped(site, site.operator)
    assert of_devices(rows)["sflam_device_drained", "b"] == 1
    values = {name: value for name, label, _, value in rows if label is None}
    assert values["sflam_paused"] == values["sflam_devices_drained"] == 1
    with site.dispatch.locked() as session:
        session.close()
    assert b'class="phase paused"' in site.ask("GET", "/", None)[1]
    assert b"drained" in site.ask("GET", "/", None)[1]


def test_series_are_as_many_as_places_however_many_devices_there_are(site):
    with site.dispatch.locked() as session:
        for device in range(10_000):
            session.samples[device] = 1
    names = {device: f"pi-{device}" for device in range(10_000)}
    for shown in (None, names):
        lines = device_metrics(site.dispatch, site.ingress.stats, ProgressBoard(), Orders(), 4, shown)
        assert len(read("\n".join(lines))) <= 4 * len(HELP)


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", 'x"} 1\nsflam_ready{a="', "\u202e"])
def test_odd_names_stay_within_their_label(site, name):
    lines = device_metrics(site.dispatch, site.ingress.stats, ProgressBoard(), Orders(), 1, {0: name})
    rows = read("\n".join(lines))
    assert {label for _, label, _, _ in rows} == {"device"} and {value for _, _, value, _ in rows} == {
        escaped(name)
    }


def printed_names(site):
    """Return the names of all metrics there are: with rounds done, reports, refusals and connections."""
    site.ask(token="sflam_wrong")
    with site.ingress.stats.arriving(0) as arrival:
        site.ingress.stats.received(arrival, 10, trained=True, report=REPORT)
    text = scraped(site, site.operator)
    found = {name for name, *_ in text}
    record = RoundRecord(round=0, participants=(0, 1), loss=0.5, seconds=3.0)
    for known in (replace(record, accuracy=0.5), replace(record, validation_accuracy=0.5)):
        board = ProgressBoard(3, [known])
        shown = metrics_text(site.dispatch, site.ingress.counts, 0, board, Orders(), Admission())
        found |= {name for name, *_ in read(shown)}
        found |= {line.split()[2] for line in shown.splitlines() if line.startswith("# TYPE")}
    return found


def test_the_dashboard_asks_for_metrics_that_there_are(site):
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += [one["query"] for one in dashboard["templating"]["list"]]
    names = set(re.findall(r"\bsflam_[a-z_]+", " ".join(asked)))
    printed = printed_names(site) | {"sflam_round_expected_seconds"}  # once a round was expected
    assert len(names) > 25 and names <= printed, names - printed
    assert {f"sflam_device_{name}" for name in HELP} <= printed
    for panel in dashboard["panels"]:
        assert panel["title"] and panel["datasource"]["uid"] == "${source}"
    places = [tuple(panel["gridPos"].values()) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places) and all(x + w <= 24 for x, _, w, _ in places)
