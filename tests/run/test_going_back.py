"""A run goes back to a round that a kept checkpoint has done, and on from there as if nothing had been since."""

from __future__ import annotations

import pytest
import torch

from sflam import config
from sflam.errors import RunError
from sflam.learn import checkpoint
from sflam.run import start as jobs


def done(run):
    for _ in run.rounds():
        pass
    return run


@pytest.fixture
def five(small, tmp_path):
    run = jobs.start(config.load(None, [*small, "learn.rounds=5"]), tmp_path / "run")
    run.kept = 4
    return done(run)


def test_back_and_on_again_is_the_same_run(five):
    folder = five.folder
    five.finish()
    before = folder.history.read_bytes().splitlines()
    run = jobs.resume(folder.path, rounds=3)
    assert len(run.records) == 3 and not folder.result.exists()
    assert len(folder.history.read_bytes().splitlines()) == 4 and before
    done(run).finish()
    assert all(torch.equal(run.state[name], five.state[name]) for name in five.state)
    assert folder.result.exists()


def test_a_round_that_is_not_kept_is_one_line_and_changes_nothing(five):
    folder = five.folder
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=r"no checkpoint of 1 rounds done; it has those of 2, 3, 4, 5"):
        jobs.resume(folder.path, rounds=1)
    assert all(path.read_bytes() == content for path, content in before.items())
    assert len(checkpoint.checkpoints(folder.checkpoints)) == 4


def test_by_the_command_line(cli, five, tmp_path):
    roster = "--roster", tmp_path / "r.json"
    refused = cli("serve", "--round", "3", *roster)
    assert refused.code == 2 and "give it with --resume" in refused.err[0]
    refused = cli("serve", "--resume", five.folder.path, "--round", "9", *roster)
    assert refused.code == 2 and len(refused.err) == 1 and "no checkpoint of 9 rounds" in refused.err[0]
    refused = cli("serve", "--outliers", "shout", "--outlier-factor", "0.5", "--keep", "1", *roster)
    options = [line.split()[1] for line in refused.err]
    assert refused.code == 2 and options == ["--outliers", "--outlier-factor", "--keep"]
