"""One trunk for all devices, mixed groups, weights by samples and global sampling: served is simulated, bit for bit.

Where devices were missing, the simulation is given the record of who came, as the history of the served run has it.
"""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch

from sflam.codec.settings import QuantSettings
from sflam.errors import ServeError
from sflam.learn import checkpoint
from sflam.learn.attendance import AttendedFleet, attendance_of
from sflam.learn.drawing import drawn_shares
from sflam.learn.settings import LearnSettings
from sflam.link.https_client import Link
from sflam.model.adapters import state_of
from sflam.records.codec import from_json_values, to_json_values
from sflam.records.history import RoundRecord
from sflam.serve.session import Phase
from tests.learn import builders
from tests.learn.builders import IDENTITY, adapted, assert_equal_states, parts_of
from tests.serve.threads import KINDS, SIZES, Died, Rig, simulated

MIXED = LearnSettings(
    method="sflam-mixed", rounds=2, batch=2, local_steps=3, lr=1e-2, clip=0.5, state="keep", optimizer="adam",
    device="cpu", canonical=True,
)  # fmt: skip
BITS = QuantSettings(bits_up=4, bits_down=3)
JOB = {"cuts": (1, 0, 2), "labels": "server", "quant": BITS, "learn": MIXED}

pytestmark = pytest.mark.usefixtures("one_thread")


def job_of(sampling="local", **learn):
    return JOB | {"learn": replace(MIXED, **learn), "sampling": sampling}


def job_for(lean, job):
    """Return a job whose outcome can be compared: masks and last bits of devices without torch are not torch's."""
    return job | {"quant": IDENTITY} if lean else job


def expect_equal(found, wanted, lean):
    """Bit for bit with torch; within float64's rounding where devices have none."""
    if lean:
        assert_equal_states(found, wanted)
    else:
        assert equal(found, wanted)


def replayed(kind, records, monkeypatch, **options):
    """Run a job in one process with the devices that came to a served run, as its history has it."""
    monkeypatch.setattr(builders, "LocalFleet", AttendedFleet)
    backbone, model, examples = adapted(kind)
    fleet = builders.local_fleet(backbone, model, examples, parts_of(SIZES), **options)
    fleet.attendance = attendance_of(
        [from_json_values(RoundRecord, to_json_values(record)) for record in records]
    )
    return builders.run(fleet, state_of(model), options["learn"].rounds)


def equal(found, wanted):
    assert found.keys() == wanted.keys()
    return all(torch.equal(found[name], wanted[name]) for name in wanted)


def expect_alike(records, wanted):
    for mine, theirs in zip(records, wanted, strict=True):
        for name in ("samples", "device_steps", "bytes_up", "bytes_down", "code_bytes", "participants"):
            assert getattr(mine, name) == getattr(theirs, name), name
        assert mine.device_loss == theirs.device_loss
        assert mine.loss == pytest.approx(theirs.loss, rel=1e-12)  # summed in another order


@pytest.mark.parametrize(
    ("kind", "sampling", "learn"),
    [
        ("bert", "local", {}),
        ("bert", "global", {"batch": 1, "local_steps": 6, "schedule": "cosine", "warmup": 0.2}),
        ("vit", "local", {"local_steps": 0, "state": "reset"}),
        ("gpt2-lm", "global", {"batch": 1, "local_steps": 0, "rounds": 1}),
        ("bert", "local", {"server_update": "batched"}),
        ("vit", "global", {"method": "sflam", "batch": 1}),
    ],
)
def test_bit_for_bit_where_all_came(tmp_path, kind, sampling, learn):
    job = job_of(sampling, **learn)
    wanted, state = simulated(kind, **job)
    rig = Rig(tmp_path, kind, **job)
    records, found = rig.run()
    assert equal(found, state)
    expect_alike(records, wanted)
    assert all(record.measured.passes == () for record in records), "all came, so there is nothing to tell"
    if sampling == "global":
        steps = job["learn"].local_steps or sum(SIZES) // (3 * job["learn"].batch)
        assert records[0].device_steps < 3 * steps, "some share is zero, or the test shows nothing"


@pytest.mark.parametrize("sampling", ["local", "global"])
def test_labels_at_home_in_one_trunk(tmp_path, sampling):
    job = job_of(sampling, server_update="batched", batch=1 if sampling == "global" else 2) | {
        "labels": "device"
    }
    _, state = simulated("bert", **job)
    assert equal(Rig(tmp_path, "bert", **job).run()[1], state)


@pytest.mark.parametrize("policy", ["uniform", "samples"])
def test_some_of_the_devices_drawn_by_the_seed(tmp_path, policy):
    """S of K: who comes and what each counts are those of the simulation, from the samples that devices reported."""
    job = job_of(local_steps=2, rounds=3) | {"policy": policy}
    backbone, model, examples = adapted("bert")
    fleet = builders.local_fleet(backbone, model, examples, parts_of(SIZES), selected=2, **job)
    wanted, state = builders.run(fleet, state_of(model), 3)
    records, found = Rig(tmp_path, "bert", quorum=2, draw=2, **job).run()
    assert [one.participants for one in records] == [one.participants for one in wanted]
    assert all(len(one.participants) == 2 for one in records)
    assert equal(found, state)


def dies(at, answered=False):
    """Return a link whose device dies once at a request ending with ``at``: before it, or once ``answered``."""

    class Dying(Link):
        due = True

        def _once(self, method, path, body, headers):
            if not (type(self).due and path.endswith(at) and method != "GET"):
                return super()._once(method, path, body, headers)
            type(self).due = False
            if answered:
                super()._once(method, path, body, headers)
            raise Died

    return Dying


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("sampling", ["local", "global"])
@KINDS
def test_a_device_that_dies_and_comes_back_changes_nothing(tmp_path, sampling, answered, lean):
    job = job_for(lean, job_of(sampling, **({"batch": 1, "local_steps": 6} if sampling == "global" else {})))
    _, state = simulated("bert", **job)
    rig = Rig(tmp_path, "bert", links={1: dies("/steps/2", answered)}, lean=lean, **job)
    _, found = rig.run()
    assert rig.deaths == 1
    expect_equal(found, state, lean)


@pytest.mark.parametrize("sampling", ["local", "global"])
@KINDS
def test_a_device_that_stays_away_is_in_the_record(tmp_path, monkeypatch, sampling, lean):
    steps = {"batch": 1, "local_steps": 6} if sampling == "global" else {}
    job = job_for(lean, job_of(sampling, state="reset", **steps))
    rows = drawn_shares(job["learn"], dict(enumerate(SIZES)), 3, 0)[1] if sampling == "global" else [2, 2, 2]
    last = max(step for step, count in enumerate(rows) if count)
    assert any(rows[:last]), "it has rows before the step in which it dies"
    rig = Rig(tmp_path, "bert", links={1: dies(f"/steps/{last}")}, away=True, quorum=2, lean=lean, **job)
    records, found = rig.run()
    assert records[0].measured.left_out == (1,)
    passes = records[0].measured.passes
    assert any(1 in one.devices for one in passes if one.step < last)
    assert not any(1 in one.devices for one in passes if one.step >= last)
    wanted, state = replayed("bert", records, monkeypatch, **job)
    expect_equal(found, state, lean)
    assert [one.participants for one in wanted] == [one.participants for one in records]
    assert not equal(found, simulated("bert", **job)[1])


def late(rig_of, number, step, ahead):
    """Return a link whose device is silent before a step until the others are ``ahead`` exchanges on."""

    class Late(Link):
        due = True

        def _once(self, method, path, body, headers):
            dispatch = rig_of().dispatch
            if type(self).due and path.endswith(f"/steps/{step}") and method == "POST":
                type(self).due = False
                with dispatch.locked() as session:
                    session._heard.pop(number)
                while dispatch.session.phase is Phase.OPEN and any(
                    seat.next < ahead for device, seat in dispatch.session.seats.items() if device != number
                ):
                    time.sleep(0.005)
            return super()._once(method, path, body, headers)

    return Late


@KINDS
@pytest.mark.parametrize("state", ["reset", "keep"])
def test_a_device_that_comes_late_has_its_step_alone_and_goes_on_with_the_others(
    tmp_path, monkeypatch, state, lean
):
    job = job_for(lean, job_of(state=state, local_steps=4))
    rigs = []
    rig = Rig(tmp_path, "bert", links={2: late(lambda: rigs[0], 2, step=1, ahead=3)}, lean=lean, **job)
    rigs.append(rig)
    records, found = rig.run()
    made = [(one.step, one.devices) for one in records[0].measured.passes]
    assert made[:3] == [(0, (0, 1, 2)), (1, (0, 1)), (2, (0, 1))]
    assert (1, (2,)) in made and made[-1][0] == 3
    assert records[0].participants == (0, 1, 2) and records[1].measured.passes == ()
    _, replay = replayed("bert", records, monkeypatch, **job)
    expect_equal(found, replay, lean)


def job_of_some(policy="uniform"):
    """Return a job in which two devices of three, with 7, 12 and 5 samples, learn in one round."""
    return job_of(local_steps=2, rounds=1, state="reset") | {"policy": policy}


def simulated_of_some(job):
    """Run it in one process; return the adapters, the devices of its round and the one that is none of them."""
    backbone, model, examples = adapted("bert")
    fleet = builders.local_fleet(backbone, model, examples, parts_of(SIZES), selected=2, **job)
    records, state = builders.run(fleet, state_of(model), 1)
    drawn = records[0].participants
    return state, drawn, (set(range(len(SIZES))) - set(drawn)).pop()


def comes_after(rig_of, others, seconds):
    """Return a link whose device announces itself once others have and a round is open, or after ``seconds``."""

    class Slow(Link):
        waited_for = True

        def _once(self, method, path, body, headers):
            if method == "POST" and path.endswith("/session"):
                session = rig_of().dispatch.session
                while not set(others) <= session.samples.keys():
                    time.sleep(0.005)
                until = time.monotonic() + seconds
                while session.phase is Phase.WAITING and time.monotonic() < until:
                    time.sleep(0.005)
                type(self).waited_for = session.phase is Phase.WAITING
            return super()._once(method, path, body, headers)

    return Slow


def rig_of_some(tmp_path, job, drawn, last, seconds):
    """Return a server whose ``last`` device, which the round does not draw, comes after the others."""
    rigs = []
    rig = Rig(
        tmp_path, "bert", quorum=2, draw=2, links={last: comes_after(lambda: rigs[0], drawn, seconds)}, **job
    )
    rigs.append(rig)
    return rig


@pytest.mark.parametrize("policy", ["uniform", "samples"])
def test_weights_are_of_all_devices_when_the_drawn_ones_come_first(tmp_path, policy):
    """A device counts by its part of all samples, so the round waits for the report of one that it does not draw."""
    job = job_of_some(policy)
    state, drawn, last = simulated_of_some(job)
    rig = rig_of_some(tmp_path, job, drawn, last, seconds=1.0)
    records, found = rig.run()
    assert rig.links[last].waited_for
    assert records[0].participants == drawn and records[0].measured.unheard == ()
    assert equal(found, state)


@pytest.mark.parametrize("policy", ["uniform", "samples"])
def test_a_server_that_comes_back_knows_the_samples_reported_before(tmp_path, policy):
    job = job_of_some(policy)
    state, drawn, last = simulated_of_some(job)
    for folder in ("before", "after"):
        (tmp_path / folder).mkdir()
    before = Rig(tmp_path / "before", "bert", quorum=2, draw=2, **job)
    before.run()
    checkpoint.save(tmp_path / "kept", before.fleet.state())
    rig = rig_of_some(tmp_path / "after", job, drawn, last, seconds=20.0)
    rig.fleet.restore(checkpoint.load(tmp_path / "kept"))
    records, found = rig.run()
    assert not rig.links[last].waited_for
    assert records[0].participants == drawn and records[0].measured.unheard == ()
    assert equal(found, state)


def quits(rig_of, number, times):
    """Return a link whose device leaves the round for good in its first step, in so many openings."""

    class Quitting(Link):
        left = times

        def _once(self, method, path, body, headers):
            if type(self).left and "/steps/" in path:
                type(self).left -= 1
                rig_of().dispatch.drop(number, "it left")
                raise Died
            return super()._once(method, path, body, headers)

    return Quitting


def without_rows(tmp_path, openings):
    """Return a job and its server, one of whose devices has no rows; the others leave in so many openings."""
    job = job_of("global", batch=1, local_steps=1, rounds=1)
    rows = drawn_shares(job["learn"], dict(enumerate(SIZES)), 3, 0)
    busy = [device for device, own in rows.items() if any(own)]
    assert len(busy) < len(SIZES), "one has no rows"
    rigs = []
    links = {device: quits(lambda: rigs[0], device, openings) for device in busy}
    rigs.append(Rig(tmp_path, "bert", quorum=1, links=links, away=True, **job))
    return job, rigs[0]


def test_a_round_that_only_devices_without_rows_deliver_is_opened_once_more(tmp_path):
    job, rig = without_rows(tmp_path, openings=1)
    records, found = rig.run()
    assert records[0].measured.openings == 2 and records[0].participants == (0, 1, 2)
    assert (records[0].measured.asked, records[0].measured.times) == ((0, 1, 2), (2, 2, 2))
    assert equal(found, simulated("bert", **job)[1])


def test_a_round_that_only_devices_without_rows_deliver_twice_is_an_error(tmp_path):
    _, rig = without_rows(tmp_path, openings=2)
    with pytest.raises(ServeError, match=r"none of them with rows.*twice in a row"):
        rig.run()
    rig.server.stop()
