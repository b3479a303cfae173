"""Devices that a served round lost, with momenta of their own or in the middle of a step: replayed bit for bit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.serve.test_shared_trunk import MIXED, dies, equal, expect_equal, job_for, job_of, replayed
from tests.serve.threads import KINDS, Rig, simulated

pytestmark = pytest.mark.usefixtures("one_thread")


def job_with(labels, **learn):
    return job_of(**learn) | {"labels": labels}


def expect_replayed(tmp_path, monkeypatch, job, link, lean, *, made, midway=()):
    """A run that loses device 1 in its first round, and has it back in the second, is replayed from its history."""
    job = job_for(lean, job)
    rig = Rig(tmp_path, "bert", links={1: link}, away=True, quorum=2, lean=lean, **job)
    records, found = rig.run()
    first, second = records
    assert first.measured.left_out == (1,) and first.measured.left_steps == (made,)
    assert first.measured.midway == midway
    assert first.participants == (0, 2) and second.participants == (0, 1, 2)
    wanted, state = replayed("bert", records, monkeypatch, **job)
    assert [one.participants for one in wanted] == [one.participants for one in records]
    assert [one.samples for one in wanted] == [one.samples for one in records]
    expect_equal(found, state, lean)
    assert not equal(found, simulated("bert", **job)[1])


@KINDS
@pytest.mark.parametrize("state", ["keep", "reset"])
def test_a_copy_of_its_own_has_the_momenta_of_the_steps_that_were_made(tmp_path, monkeypatch, state, lean):
    job = job_with("server", method="sflam", state=state)
    expect_replayed(tmp_path, monkeypatch, job, dies("/steps/1"), lean, made=1)


def test_without_it_the_replay_is_another_run(tmp_path, monkeypatch):
    """The comparison can fail: a device that is taken to have made all its steps has other momenta."""
    job = job_with("server", method="sflam")
    records, found = Rig(tmp_path, "bert", links={1: dies("/steps/1")}, away=True, quorum=2, **job).run()
    lost = records[0].measured
    assert lost.left_steps == (1,) and not records[1].measured.left_steps
    whole = [replace(records[0], measured=replace(lost, left_steps=(MIXED.local_steps,))), records[1]]
    assert not equal(found, replayed("bert", whole, monkeypatch, **job)[1])


@KINDS
@pytest.mark.parametrize("method", ["sflam", "sflam-mixed"])
@pytest.mark.parametrize("state", ["keep", "reset"])
def test_a_device_that_is_silent_in_the_middle_of_a_step(tmp_path, monkeypatch, method, state, lean):
    """Its rows are in the forward, and in the shares of the others; they count for nothing in the backward."""
    shared = {"server_update": "batched"} if method == "sflam-mixed" else {}
    job = job_with("device", method=method, state=state, **shared)
    expect_replayed(tmp_path, monkeypatch, job, dies("/steps/1/backward"), lean, made=1, midway=(1,))


@KINDS
def test_a_device_that_is_silent_between_two_steps(tmp_path, monkeypatch, lean):
    job = job_with("device", method="sflam")
    expect_replayed(tmp_path, monkeypatch, job, dies("/steps/2/forward"), lean, made=2)
