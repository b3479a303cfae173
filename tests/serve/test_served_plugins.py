"""A served job with a plug-in: devices load what their own command line names, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.serve.network import network
from tests.serve.test_served_is_simulated import job_of, sets
from tests.test_plugins import MINE, written


@pytest.mark.slow
def test_a_device_brings_the_jobs_plug_in_or_stays_out(room: Path, tmp_path: Path) -> None:
    job = written(tmp_path)
    (tmp_path / "other.py").write_text(MINE + "\n")
    with network(tmp_path, 1) as net:
        settings = sets(job_of(room, "fleet.devices=1", "learn.rounds=1"))
        server = net.serve(job, *settings, "--out", tmp_path / "run")
        for given in ([], ["--plugin", tmp_path / "other.py"]):
            refused = net.join(0, *given)
            assert refused.wait() == 2
            assert "needs the plug-in 'mine.py'" in refused.lines[-1] and "--plugin" in refused.lines[-1]
        joined = net.join(0, "--plugin", tmp_path / "plugs/mine.py")
        assert server.wait() == 0, server.lines
        assert joined.wait(20) == 0, joined.lines
    assert "plugins" not in (tmp_path / "device-0/job.toml").read_text().replace("plugins = []", "")
