"""Long lists of a history are columns of a binary file; every reader sees the records as they were."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.errors import RunError
from sflam.records import columns, history
from sflam.records.history import History, RoundRecord, record_to_dict
from sflam.records.served_round import ServedRound, TrunkPass
from tests.records.test_history import CONFIG

MANY = 10_000
NUMBERS = st.one_of(
    st.lists(st.integers(-(2**70), 2**70), max_size=100),
    st.lists(st.integers(0, 300), min_size=65, max_size=100),
    st.lists(st.floats(allow_nan=False) | st.none(), min_size=60, max_size=100),
    st.lists(st.lists(st.none() | st.floats(0, 1), min_size=2, max_size=2), min_size=60, max_size=80),
    st.lists(st.text(max_size=3), max_size=80),
    st.lists(st.sampled_from([1, 1.5, None, True, "inf", "a"]), min_size=65, max_size=90),
)
VALUES = st.recursive(
    st.dictionaries(st.text("abc_", min_size=1, max_size=4), NUMBERS | st.none() | st.floats(), max_size=4),
    lambda inner: st.dictionaries(
        st.text("abc_", min_size=1, max_size=4), inner | st.lists(inner, max_size=3), max_size=3
    ),
    max_leaves=6,
)


def record(number: int, devices: int = MANY) -> RoundRecord:
    return RoundRecord(
        round=number,
        loss=0.5,
        samples=devices,
        class_accuracy=(0.5, None, 1.0),
        participants=tuple(range(0, 3 * devices, 3)),
        device_samples=(7,) * devices,
        device_loss=tuple(None if k % 5 == 1 else k / 3 + number for k in range(devices)),
        device_class_accuracy=((0.25, None),) * devices,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "run" / "history.jsonl"
    with History(file) as written:
        written.start(CONFIG, seed=3)
        for number in range(3):
            written.append(record(number))
    return file


def plain(values: object) -> object:
    """Return values with the special floats as numbers, as a record reads them."""
    if isinstance(values, dict):
        return {key: plain(each) for key, each in values.items()}
    if isinstance(values, list):
        return [plain(each) for each in values]
    return float(values) if values in ("inf", "-inf") else values


@settings(deadline=None, max_examples=200)
@given(VALUES)
def test_any_plain_values_come_back(values: dict[str, object]) -> None:
    text = json.dumps(values)
    short, block = columns.packed(json.loads(text))
    found = columns.unpacked(json.loads(json.dumps(short)), block) if block else short
    as_read, expected = json.dumps(plain(found), sort_keys=True), json.dumps(plain(values), sort_keys=True)
    assert as_read == expected


def test_lines_do_not_grow_with_the_fleet_and_what_is_read_is_what_was_written(path: Path) -> None:
    header, records = history.read(path)
    assert records == [record(0), record(1), record(2)] and header["config"] == CONFIG
    assert max(map(len, path.read_text().splitlines())) < 1000
    each = (path.with_suffix(".columns").stat().st_size) / 3 / MANY
    assert each < 35, "bytes of a device in a round: 2 + 1 + 8 + 1 + 2 x 8 + 2 of values"


def test_a_few_devices_are_in_the_line_as_before(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    with History(file) as written:
        written.start(CONFIG, seed=3)
        written.append(record(0, columns.INLINE))
    line = json.loads(file.read_text().splitlines()[1])
    assert line == {"kind": "round", **record_to_dict(record(0, columns.INLINE))}
    assert not history.columns_of(file).exists()


def test_numbers_that_are_not_finite_and_nested_lists_come_back(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    count = 120
    each = dict.fromkeys(("bytes_up", "bytes_down", "payload_up", "payload_down"), (2**40,) * count)
    same = dict.fromkeys(("cuts", "bits_up", "bits_down"), (4,) * count)
    times = dict.fromkeys(("finish", "upload_s", "away_s"), (0.25,) * count)
    passes = (TrunkPass(step=0, devices=tuple(range(100))), TrunkPass(step=1, devices=(4,)))
    written = replace(
        record(0, count),
        device_loss=(math.inf, -math.inf, None, 1.0) * 30,
        measured=ServedRound(seconds=1.0, openings=1, server_s=0.5, **times, **each, **same, passes=passes),
    )
    with History(file) as log:
        log.start(CONFIG, seed=3)
        log.append(written)
    assert history.read(file)[1] == [written]
    assert len(file.read_text().splitlines()[1]) < 1500


def test_a_crash_between_block_and_line_leaves_nothing_behind(path: Path) -> None:
    whole = path.with_suffix(".columns").read_bytes()
    with path.with_suffix(".columns").open("ab") as blocks:
        blocks.write(b"half a block")
    assert len(history.read(path)[1]) == 3
    with History(path) as log:
        log.append(record(3))
    assert history.read(path)[1] == [record(number) for number in range(4)]
    assert path.with_suffix(".columns").read_bytes().startswith(whole)
    assert b"half" not in path.with_suffix(".columns").read_bytes()


def test_rewound_rounds_are_written_over(path: Path) -> None:
    before = path.read_bytes(), path.with_suffix(".columns").read_bytes()
    assert history.rewind(path, 1) == [record(0)]
    with History(path) as log:
        log.append(record(1))
        log.append(record(2))
    assert (path.read_bytes(), path.with_suffix(".columns").read_bytes()) == before


def test_a_new_run_forgets_the_columns_of_one_that_left_no_history(path: Path) -> None:
    path.unlink()
    with History(path) as log:
        log.start(CONFIG, seed=3)
    assert not path.with_suffix(".columns").exists()


@pytest.mark.parametrize("damage", ["gone", "short", "changed", "reference"])
def test_damaged_columns_are_one_clear_error(path: Path, damage: str) -> None:
    blocks = path.with_suffix(".columns")
    raw = blocks.read_bytes()
    if damage == "gone":
        blocks.unlink()
    elif damage == "short":
        blocks.write_bytes(raw[: len(raw) // 2])
    elif damage == "changed":
        blocks.write_bytes(raw[:-9] + b"\xff" + raw[-8:])
    else:
        path.write_text(path.read_text().replace('"columns": [0', '"columns": ["x"'))
    for act in (history.read, History, lambda file: history.rewind(file, 1)):
        with pytest.raises(
            RunError, match="cannot be read" if damage == "gone" else r"history\.jsonl, line \d is"
        ):
            act(path)
