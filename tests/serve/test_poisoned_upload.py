"""A device that uploads what its steps cannot have made is named and sits rounds out; the average never sees it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from sflam.codec.bodies import decode, encode
from sflam.errors import ServeError
from sflam.learn.screening import Screen
from sflam.link.https_client import Link
from sflam.serve.event_log import EventLog
from tests.serve.test_shared_trunk import JOB as QUANTIZED
from tests.serve.test_shared_trunk import MIXED, equal, replayed
from tests.serve.threads import Rig

LIAR = 2  # with the most blocks of all
JOB = QUANTIZED | {"quant": replace(QUANTIZED["quant"], bits_adapters=32)}  # lies are sent as adapters
APART = JOB | {"learn": replace(MIXED, method="sflam", rounds=4)}

pytestmark = pytest.mark.usefixtures("one_thread")


def uploading(change, rounds=range(100)):
    """Return a link that sends ``change`` (start, honest values) in some rounds in place of what was trained."""

    class Uploading(Link):
        start = None

        def _once(self, method, path, body, headers):
            if method == "PUT" and int(path.split("/")[3]) in rounds:
                frame = decode(body)
                body = encode(
                    replace(frame, values=change(self.start, frame.values).astype(frame.values.dtype))
                )
            found = super()._once(method, path, body, headers)
            if method == "GET" and path.endswith("/adapters") and found[0] == 200:
                self.start = decode(found[2]).values.copy()
            return found

    return Uploading


def poison(start, _):
    return start + 100 * np.where(start < 0, -1.0, 1.0)


def served(tmp_path, link, job=APART, liars=(LIAR,), **options):
    """Return the rig, its records and adapters, the lines shown and the events."""
    rig = Rig(tmp_path, "vit", links=dict.fromkeys(liars, link), lives=1, **job, **options)
    lines = []
    rig.fleet.notify = rig.fleet.deliveries.notify = lines.append
    log = rig.fleet.event_log = rig.fleet.deliveries.event_log = EventLog(tmp_path / "served.jsonl")
    try:
        records, found = rig.run()
    finally:
        log.close()
    events = [json.loads(line) for line in (tmp_path / "served.jsonl").read_text().splitlines()]
    return rig, records, found, lines, events


def largest(start, _):
    return np.full_like(start, 3e38)


@pytest.mark.parametrize("change", [poison, largest])
@pytest.mark.parametrize("method", ["sflam", "sflam-mixed"])
def test_the_others_go_on_as_if_it_had_not_delivered(tmp_path, monkeypatch, change, method):
    job = JOB | {"learn": replace(MIXED, method=method, rounds=4)}
    _, records, found, lines, events = served(tmp_path, uploading(change, {0}), job)
    # Refused in round 0, it sits round 1 out, and then counts again: one wrong round is not for good.
    assert [one.participants for one in records] == [(0, 1), (0, 1), (0, 1, 2), (0, 1, 2)]
    assert [one.measured.left_out for one in records] == [(LIAR,), (), (), ()]
    _, without = replayed("vit", records, monkeypatch, **job)
    assert equal(found, without)
    assert any(f"what device {LIAR} trained is refused" in line for line in lines)
    (event,) = [event for event in events if event["event"] == "distrusted"]
    assert (event["device"], event["round"], event["sits_out"]) == (LIAR, 0, 1)


def test_who_lies_again_sits_out_longer(tmp_path):
    job = APART | {"learn": replace(APART["learn"], rounds=6)}
    _, records, *_ = served(tmp_path, uploading(poison), job)
    assert [LIAR in one.participants for one in records] == [False] * 6
    assert [one.measured.left_out for one in records] == [(LIAR,), (), (LIAR,), (), (), (LIAR,)]


ALIKE = APART | {"cuts": (1, 1, 2)}


@pytest.mark.parametrize("rule", ["clip", "reject"])
def test_what_steps_can_make_but_others_do_not_is_shortened_or_refused_by_rule(tmp_path, rule):
    def far(start, values):
        return start + 1000 * (values - start)

    learn = replace(ALIKE["learn"], optimizer="sgd", clip=0.0, state="reset", rounds=2)
    _, records, _, _, events = served(
        tmp_path, uploading(far, {0}), ALIKE | {"learn": learn}, screen=Screen(rule, 4.0)
    )
    counted = {"clip": [(0, 1, 2)] * 2, "reject": [(0, 1)] * 2}
    assert [one.participants for one in records] == counted[rule]
    name = {"clip": "clipped", "reject": "distrusted"}[rule]
    assert [
        (e["event"], e["device"], e["round"]) for e in events if e["event"] in ("clipped", "distrusted")
    ] == [(name, LIAR, 0)]


def test_where_most_are_refused_the_round_is_made_again_without_them(tmp_path):
    job = ALIKE | {"learn": replace(ALIKE["learn"], rounds=2)}
    _, records, *_ = served(tmp_path, uploading(poison), job, liars=(0, 2))
    assert [(one.participants, one.measured.openings) for one in records] == [((1,), 2), ((1,), 1)]


def test_where_all_are_refused_there_is_one_line_and_no_average(tmp_path):
    job = ALIKE | {"learn": replace(ALIKE["learn"], rounds=1)}
    with pytest.raises(ServeError, match=r"devices 0, 1, 2 trained was refused.*revoke"):
        served(tmp_path, uploading(poison), job, liars=(0, 1, 2))
