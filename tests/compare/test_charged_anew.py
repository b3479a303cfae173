"""Runs that learn the same are trained once, and charged as if each had been trained."""

from __future__ import annotations

import pytest

from sflam import config
from sflam.compare.charged_anew import learns, trained_once
from sflam.compare.comparison import compare
from sflam.compare.waiting import Waiting
from sflam.records import history
from sflam.run import start as runs
from tests.simulate.builders import SQUARE, timeless

NAMES = ("sflam", "sflam+equal", "sflam+random", "fedlora")
SHORT = ("network.simulate=true", "learn.rounds=2", "learn.evaluate_every=0")


@pytest.fixture
def trained(monkeypatch):
    """The folders in which a run was started."""
    started, begin = [], runs.start

    def start(job, folder=None, **more):
        started.append(folder.name)
        return begin(job, folder, **more)

    monkeypatch.setattr(runs, "start", start)
    return started


def test_runs_that_learn_the_same_are_trained_once(small, tmp_path, trained):
    job = config.load(None, [*small, *SHORT])
    events = []
    found = compare(
        job,
        tmp_path / "out",
        methods=NAMES,
        sweeps={"weight": (0.1, 0.9)},
        jobs=1,
        on_event=lambda *event: events.append(event),
    )
    assert len(trained) == 2 and {name.split("-")[0] for name in trained} == {"sflam", "fedlora"}
    assert not found.failed
    folders = {
        path.name: path
        for path in (tmp_path / "out").iterdir()
        if path.is_dir() and (path / "result.json").exists()
    }
    assert len(folders) > 6
    drawn = {name for name, path in folders.items() if (path / "curves.png").exists()}
    assert drawn == set(trained), "a run that is charged anew has no picture of its own"
    assert {name for name, what, _ in events if what == "done"} == set(folders)
    for name in folders:  # each is what training it gives
        alone = runs.start(config.load(folders[name] / "config.toml"), tmp_path / "alone" / name)
        list(alone.rounds())
        assert timeless(history.read(folders[name] / "history.jsonl")[1]) == timeless(alone.records)


def test_what_is_there_serves_a_later_comparison(small, tmp_path, trained):
    job = config.load(None, [*small, *SHORT])
    compare(job, tmp_path / "out", methods=("sflam",), jobs=1)
    compare(job, tmp_path / "out", methods=("sflam", "sflam+equal"), jobs=1)
    assert len(trained) == 1


def test_plans_that_drop_a_device_are_trained(small, tmp_path, trained):
    """A replay that cannot be is no failure: full power breaks caps that the optimum holds."""
    slow = (*small, *SHORT, "plan.latency_weight=0.1")
    free = runs.start(config.load(None, [*slow, "plan.method=equal"]), tmp_path / "free")
    cap = 1.01 * max(sorted(record.charge.device_j)[0] for record in free.rounds())
    job = config.load(None, [*slow, "plan.late=drop", f"plan.energy_cap={cap}"])
    found = compare(job, tmp_path / "out", methods=("sflam", "sflam+equal"), jobs=1)
    records = [history.read(path)[1] for path in sorted((tmp_path / "out").glob("*/history.jsonl"))]
    assert len(records) == len({tuple(record.participants for record in each) for each in records}) == 2
    assert len(trained) == 3 and not found.failed


def test_plans_of_bits_cuts_and_servers_are_trained_each(small):
    plain = config.load(None, [*small, *SHORT])
    for settings in (['plan.optimize=["bits"]'], ["plan.method=cut"], SQUARE, ["network.simulate=false"]):
        assert learns(config.load(None, [*small, *SHORT, *settings])) == ""
    assert learns(plain)


def test_a_run_that_was_begun_is_gone_on_with(small, tmp_path):
    jobs = [
        config.load(None, [*small, *SHORT, *more])
        for more in ([], ["plan.method=equal"], ["plan.method=random"])
    ]
    tasks = [Waiting(name, job, tmp_path / name) for name, job in zip("abc", jobs, strict=True)]
    runs.start(jobs[1], tasks[1].path)
    once = trained_once(tasks)
    assert [task.name for task in once.first] == ["a", "b"]
    assert [(task.name, source.name) for task, source in once.rest] == [("c", "b")]
