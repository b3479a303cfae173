"""Passes whose size is found by trying: what is kept of it, and that nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sflam
from sflam import config
from sflam.cost.memory import memory_of_rows, rows_of_pass
from sflam.learn import pass_search
from sflam.learn.fit import built_step
from sflam.learn.pass_search import TRIES, halved
from sflam.records.run_folder import RunFolder
from sflam.run.start import resume, start
from tests.learn.builders import LEARN, adapted

MEASURED = "learn.passes=measured"


def timed(monkeypatch: pytest.MonkeyPatch, per_row: dict[int, float]) -> list[int]:
    """Have passes of so many rows take so long a row; return the list that those tried are put in."""
    tried: list[int] = []

    def seconds(trunk: Any, frames: Any, clock: Any) -> float:
        rows = sum(len(frame.hidden) for frame in frames)
        REAL(trunk, frames, clock)  # what it would do, it does
        tried.append(rows)
        return per_row[rows] * rows

    monkeypatch.setattr(pass_search, "_seconds", seconds)
    return tried


REAL = pass_search._seconds


def adapters(folder: Path) -> bytes:
    found = next(path for name in ("adapter", "model") for path in (folder / name).glob("*.safetensors"))
    return found.read_bytes()


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("learn.method=sfl-v2",),
        ("learn.method=sflam-mixed",),
        ("model.labels=device",),
        ("learn.checkpointing=true", "learn.memory_gb=0.002"),
        ("learn.aggregation=freeze-a", "learn.device_half=frozen"),
        ("model.trainable=full",),
    ],
)
def test_a_run_is_that_of_the_memory_found(
    small: tuple[str, ...], settings: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = timed(monkeypatch, {12: 5.0, 8: 2.0, 4: 1.99, 3: 4.0, 2: 2.5, 1: 9.0})
    job = config.load(None, [*small, *settings, MEASURED])
    sflam.train(job, tmp_path / "measured")
    kept = RunFolder(tmp_path / "measured").read_job()
    assert kept.learn.passes == "rule" and kept.learn.memory_gb > 0 and len(tried) >= TRIES
    count = len(tried)
    sflam.train(
        config.load(None, [*small, *settings, f"learn.memory_gb={kept.learn.memory_gb!r}"]), tmp_path / "said"
    )
    assert adapters(tmp_path / "measured") == adapters(tmp_path / "said")
    assert resume(tmp_path / "measured").job == kept and len(tried) == count  # never looked for again


def test_what_is_fastest_within_two_percent_with_the_fewest_rows_is_taken(
    small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = timed(monkeypatch, {12: 5.0, 8: 1.99, 4: 2.0, 2: 2.3, 1: 1.0})
    run = start(config.load(None, [*small, MEASURED]), tmp_path / "run")
    assert tried == [
        rows for rows in (12, 8, 4, 2) for _ in range(TRIES)
    ]  # 2 is so much slower that 1 is not tried
    note = next(each for each in run.notes if "fastest" in each)
    assert note.startswith("passes of 4 rows") and "8: 1.99e+03" in note
    budget = run.assembly.fleet.servers.trunks[0].budget  # type: ignore[attr-defined]
    assert rows_of_pass(replace(budget.step, tokens=17), 1) == 4


@pytest.mark.parametrize("most", [1, 2, 3, 4, 7, 8, 9, 64, 100])
def test_sizes_are_the_most_and_powers_of_two(most: int) -> None:
    found = list(halved(most))
    assert found[0] == most and found[-1] == 1 and sorted(set(found), reverse=True) == found
    assert all(rows & (rows - 1) == 0 for rows in found[1:])


@pytest.mark.parametrize("rows", [1, 2, 7, 64, 1000])
@pytest.mark.parametrize("cut", [0, 1])
def test_memory_of_rows_gives_those_rows_back(rows: int, cut: int) -> None:
    step = built_step(adapted("vit")[0], 17, LEARN)
    found = memory_of_rows(step, cut, rows)
    assert rows_of_pass(replace(step, training=replace(step.training, memory_gb=found)), cut) == rows
