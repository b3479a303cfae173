"""Each of several jobs learns what it learns when it is served alone, bit for bit."""

from __future__ import annotations

import pytest
import torch

from sflam import train
from tests.serve.several.both import OTHER, Both, adapters_of, job_of

pytestmark = pytest.mark.usefixtures("one_thread")
ALL = [(name, device) for name in ("digits", "other") for device in (0, 1)]


def test_two_jobs_at_once_are_each_alone(tmp_path):
    jobs = {"digits": job_of(), "other": job_of(*OTHER)}
    both = Both(tmp_path, jobs)
    assert both.run(ALL) == [2, 2, 3, 3]
    assert [job.state for job in both.served.jobs.values()] == ["ended", "ended"]
    for name, job in jobs.items():
        alone = train(job, tmp_path / f"{name}-alone")
        found, wanted = adapters_of(tmp_path / "runs" / name), adapters_of(tmp_path / f"{name}-alone")
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted), name
        assert both.served.jobs[name].result.accuracy == alone.accuracy
