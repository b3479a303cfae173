"""A history is written line by line, survives torn lines, and is rewound to resume."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.errors import RunError
from sflam.records import history
from sflam.records.history import History, RoundRecord, record_from_dict, record_to_dict

CONFIG = {"seed": 3, "model": {"name": "nano-vit", "targets": []}}


def record(number: int) -> RoundRecord:
    return RoundRecord(
        round=number,
        loss=2.0 / (number + 1),
        test_loss=None if number % 2 else 0.5,
        accuracy=None if number % 2 else 0.9,
        samples=100,
        device_steps=20,
        bytes_up=4000,
        bytes_down=5000,
        adapter_bytes_up=60,
        adapter_bytes_down=70,
        residual_bytes=8,
        aggregation_error=0.01,
        seconds=1.5,
        class_accuracy=(0.5, None, 1.0),
        participants=(0, 2, 5),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A history of three rounds."""
    file = tmp_path / "run" / "history.jsonl"
    with History(file) as written:
        written.start(CONFIG, seed=3)
        for number in range(3):
            written.append(record(number))
    return file


def test_what_is_appended_is_read(path: Path) -> None:
    header, records = history.read(path)
    assert records == [record(0), record(1), record(2)]
    assert header["kind"] == "header" and header["config"] == CONFIG and header["seed"] == 3
    assert header["versions"]["sflam"] and header["versions"]["python"]
    assert records[0].total_bytes == 4000 + 5000 + 60 + 70 + 8


def test_every_line_is_strict_json(path: Path) -> None:
    with History(path) as written:
        written.append(RoundRecord(round=3, loss=math.nan, test_loss=math.inf, aggregation_error=-math.inf))

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    last = history.read(path)[1][-1]
    assert math.isnan(last.loss) and last.test_loss == math.inf and last.aggregation_error == -math.inf


def test_numpy_numbers_are_recorded_as_plain_ones(path: Path) -> None:
    with History(path) as written:
        written.append(
            RoundRecord(round=3, loss=np.float32(0.5), samples=np.int64(7), participants=(np.int32(1),))
        )
    assert history.read(path)[1][-1] == RoundRecord(round=3, loss=0.5, samples=7, participants=(1,))


@settings(deadline=None)
@given(
    st.builds(
        RoundRecord,
        round=st.integers(0, 10**9),
        loss=st.floats(allow_nan=False),
        test_loss=st.none() | st.floats(allow_nan=False),
        accuracy=st.none() | st.floats(0, 1),
        bytes_up=st.integers(0, 2**70),
        seconds=st.floats(0, 1e9),
        participants=st.lists(st.integers(0, 1000)).map(tuple),
    )
)
def test_records_survive_json(written: RoundRecord) -> None:
    assert record_from_dict(json.loads(json.dumps(record_to_dict(written)))) == written


@pytest.mark.parametrize("number", [0, 2])
def test_a_duplicate_or_earlier_round_is_refused(path: Path, number: int) -> None:
    before = path.read_bytes()
    with History(path) as written, pytest.raises(RunError, match=f"round 2, so round {number} is refused"):
        written.append(record(number))
    assert path.read_bytes() == before


def test_a_second_run_in_the_same_file_is_refused(path: Path) -> None:
    with pytest.raises(RunError, match="already holds a run"):
        History(path).start(CONFIG, seed=3)


def test_appending_without_a_header_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="start the history"):
        History(tmp_path / "history.jsonl").append(record(0))


@pytest.mark.parametrize("rounds", [0, 1, 2, 3, 9])
def test_rewind_keeps_the_header_and_earlier_rounds(path: Path, rounds: int) -> None:
    header, _ = history.read(path)
    kept = history.rewind(path, rounds)
    assert history.read(path) == (header, kept)
    assert [item.round for item in kept] == list(range(min(rounds, 3)))
    assert os.listdir(path.parent) == [path.name]
    with History(path) as written:
        written.append(record(max(rounds, len(kept))))


def test_a_line_torn_at_any_byte_is_dropped(path: Path) -> None:
    whole = path.read_bytes()
    start = whole.rindex(b"\n", 0, len(whole) - 1) + 1
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        assert [item.round for item in history.read(path)[1]] == [0, 1]
        if end > start:
            with pytest.raises(RunError, match="torn line"):
                History(path)
    history.rewind(path, 2)
    with History(path) as written:
        written.append(record(2))
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("line", "text", "reason"),
    [
        (2, "garbage", "Expecting value"),
        (3, "[1]", "is not a round"),
        (1, '{"kind": "round"}', "is not a header"),
        (3, '{"kind": "round", "round": 1}', "misses"),
        (4, None, "round 0 after round 1"),
    ],
)
def test_a_damaged_line_is_named(path: Path, line: int, text: str | None, reason: str) -> None:
    lines = path.read_text().splitlines()
    lines[line - 1] = lines[1] if text is None else text
    path.write_text("\n".join(lines) + "\n")
    for act in (history.read, History, lambda file: history.rewind(file, 1)):
        with pytest.raises(RunError, match=rf"history\.jsonl, line {line} is damaged .*{reason}"):
            act(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("round", 1.5), ("round", True), ("loss", "high"), ("loss", None), ("participants", [1.0]), ("new", 1)],
)
def test_wrong_values_are_named(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=key):
        record_from_dict({**record_to_dict(record(0)), key: value})


def test_a_missing_or_empty_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be read"):
        history.read(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(RunError, match="no header"):
        history.read(tmp_path / "empty.jsonl")


def test_each_round_is_on_disk_before_append_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def observe(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", observe)
    with History(path) as written:
        written.append(record(3))
    assert synced == [path.stat().st_size]


def test_a_full_disk_is_one_clear_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with History(path) as written, pytest.raises(RunError, match="No space left"):
        written.append(record(3))
    with pytest.raises(RunError, match="No space left"):
        history.rewind(path, 1)
    monkeypatch.undo()
    assert len(history.read(path)[1]) == 3 and os.listdir(path.parent) == [path.name]
