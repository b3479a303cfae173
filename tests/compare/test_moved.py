"""Data that lies elsewhere repeats no run, and a run that was begun goes on with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sflam import config
from sflam.compare.comparison import compare
from sflam.run import start as runs


def settings(small: tuple[str, ...], folder: Path) -> list[str]:
    """Return the settings of a tiny run, its data and its model in a folder."""
    kept = [text for text in small if not text.startswith(("data.name=", "model.name="))]
    return [
        *kept,
        "network.simulate=true",
        "learn.rounds=1",
        f"data.name={folder / 'digits.npz'}",
        f"model.name={folder / 'vit'}",
    ]


@pytest.fixture
def data(small: tuple[str, ...], tmp_path: Path) -> Path:
    """A folder with the data and the model of tiny runs."""
    named = dict(text.split("=", 1) for text in small)
    (tmp_path / "here").mkdir()
    shutil.copy(named["data.name"], tmp_path / "here" / "digits.npz")
    shutil.copytree(named["model.name"], tmp_path / "here" / "vit")
    return tmp_path / "here"


def test_moved_data_repeats_no_run(small: tuple[str, ...], data: Path, tmp_path: Path) -> None:
    def events(folder: Path, names: tuple[str, ...]) -> tuple[list[str], dict]:
        found: list[str] = []
        job = config.load(None, settings(small, folder))
        done = compare(job, tmp_path / "out", names, on_event=lambda *event: found.append(event[1]))
        rows = done.to_dict()["methods"]
        return [what for what in found if what != "round"], rows

    _, before = events(data, ("sflam", "sl"))
    there = tmp_path / "mounted" / "elsewhere"
    there.parent.mkdir()
    data.rename(there)
    again, after = events(there, ("sflam", "sl"))
    assert again == ["finished", "finished"] and after == before
    charged, _ = events(there, ("sflam", "sflam+equal"))  # of a run whose data was moved since
    assert charged == ["finished", "started", "done"]
    path = next((tmp_path / "out").glob("sl-*"))
    (path / "result.json").unlink()
    resumed, last = events(there, ("sflam", "sl"))
    assert resumed == ["finished", "resumed", "done"]
    assert json.dumps(last["sl"]["accuracy"]) == json.dumps(before["sl"]["accuracy"])


def test_data_that_changed_is_another_run(small: tuple[str, ...], data: Path, tmp_path: Path) -> None:
    job = config.load(None, settings(small, data))
    compare(job, tmp_path / "out", ("sl",))
    (data / "vit" / "added.txt").write_text("x")
    compare(job, tmp_path / "out", ("sl",))
    assert len(list((tmp_path / "out").glob("sl-*"))) == 2


def test_a_charge_of_moved_data_trains_nothing(
    small: tuple[str, ...], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(config.load(None, settings(small, data)), tmp_path / "out", ("sflam",))
    data.rename(tmp_path / "there")
    monkeypatch.setattr(runs, "start", None)
    found = compare(
        config.load(None, settings(small, tmp_path / "there")), tmp_path / "out", ("sflam", "sflam+equal")
    )
    assert set(found.methods) == {"sflam", "sflam+equal"} and not found.failed
