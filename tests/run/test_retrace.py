"""A buffered run made again from its trace: the same adapters, bit for bit; a trace of another job is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from sflam.errors import RunError
from sflam.learn.versions import buffers_of
from sflam.run.retrace import expect_trace, largest_difference, retrace
from tests.simulate.builders import ran, started
from tests.simulate.test_buffered import BUFFERED, EQUAL, UNLIKE

MORE = ("learn.buffer=2", "learn.rounds=9", "learn.staleness=2", "quant.bits_adapters=8")


@pytest.mark.parametrize("state", ["reset", "keep"])
def test_a_trace_makes_the_same_adapters(small, tmp_path, state):
    run = ran(small, tmp_path / "run", *UNLIKE, *BUFFERED, *MORE, f"learn.state={state}")
    run.finish()
    found = retrace(tmp_path / "run")
    assert found.difference == 0.0
    assert found.state.keys() == run.state.keys()
    assert all(torch.equal(found.state[name], run.state[name]) for name in run.state)
    assert [(one.samples, one.total_bytes) for one in found.records] == [
        (one.samples, one.total_bytes) for one in run.records
    ]
    behind = [tau for buffer in buffers_of(run.records).values() for tau in buffer.staleness]
    assert max(behind) > 0, "none was stale, so the trace says nothing"


def test_other_updates_make_other_adapters(small, tmp_path, monkeypatch):
    ran(small, tmp_path / "run", *UNLIKE, *BUFFERED, *MORE)

    def shifted(records):
        found = buffers_of(records)
        return found | {
            0: replace(found[0], numbers=tuple(number + 50 for number in found[0].numbers))
        }  # the draws of other cycles

    monkeypatch.setattr("sflam.run.retrace.buffers_of", shifted)
    assert retrace(tmp_path / "run").difference > 0


def test_a_trace_of_another_job_is_refused(small, tmp_path):
    run = ran(small, tmp_path / "run", *UNLIKE, *BUFFERED, *MORE)
    buffers, job = buffers_of(run.records), run.job
    expect_trace(job, buffers, 9)
    first = buffers[0]
    for wrong, text in (
        ({0: replace(first, devices=(0, 7))}, "device 7 is none of the 3 of fleet.devices"),
        ({0: replace(first, staleness=(0, 3))}, "an update of version 1 is 3 versions behind"),
        ({0: replace(first, numbers=())}, "does not say which cycle"),
        ({1: first}, "came twice"),
    ):
        with pytest.raises(RunError, match=f"the trace is not of this job: .*{text}"):
            expect_trace(job, buffers | wrong, 9)
    with pytest.raises(RunError, match="no updates of version 10"):
        expect_trace(job, buffers, 10)
    other = replace(job, learn=replace(job.learn, buffer=3))
    with pytest.raises(RunError, match=r"version 1 is of 2 updates, and learn\.buffer is 3"):
        expect_trace(other, buffers, 9)


def test_a_trunk_that_all_share_is_refused_before_anything_is_trained(small, tmp_path):
    more = ("learn.trunk=shared", "learn.rounds=2", "learn.buffer=2")
    ran(small, tmp_path / "run", *UNLIKE, *BUFFERED, *more)
    with pytest.raises(RunError, match=r'learn\.trunk = "shared": a trunk that all share goes on'):
        retrace(tmp_path / "run")


def test_a_run_without_a_version_has_nothing_to_compare(small, tmp_path):
    started(small, tmp_path / "run", *UNLIKE, *BUFFERED, *MORE)
    with pytest.raises(RunError, match="has no version yet whose adapters could be compared"):
        retrace(tmp_path / "run")


def test_what_is_no_number_is_no_agreement():
    nan, inf = float("nan"), float("inf")
    ones = {"a": torch.zeros(2), "b": torch.ones(2)}
    assert largest_difference(ones, ones) == 0.0
    assert largest_difference(ones, ones | {"b": torch.tensor([1.0, 1.5])}) == 0.5
    for odd in (nan, inf, -inf):  # also where an equal tensor comes before it
        damaged = ones | {"b": torch.tensor([1.0, odd])}
        assert largest_difference(ones, damaged) == inf == largest_difference(damaged, ones)
        assert largest_difference(damaged, damaged) == 0.0
    with pytest.raises(RunError, match="has other adapters than its job"):
        largest_difference(ones, ones | {"b": torch.ones(3)})


def test_the_command(small, tmp_path, cli):
    ran(small, tmp_path / "run", *UNLIKE, *BUFFERED, *MORE)
    done = cli("replay", tmp_path / "run", "--train")
    assert done.code == 0 and "9 versions made again: the adapters are the run's, bit for bit" in " ".join(
        done.out
    )
    done = cli("replay", tmp_path / "run", "--train", "--json")
    assert json.loads("\n".join(done.out)) == {"versions": 9, "difference": 0.0}
    done = cli("replay", tmp_path / "run", "--train", "--set", "plan.method=equal")
    assert done.code == 2 and "leave --set and --out out" in " ".join(done.err)
    ran(small, tmp_path / "round", *EQUAL, "learn.rounds=1")
    done = cli("replay", tmp_path / "round", "--train")
    assert done.code == 2 and "only buffered rounds keep which updates came" in " ".join(done.err)
