"""The record of a partition: what is written is read, damage is refused, and a difference is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.errors import RunError
from sflam.records.partition import (
    DeviceSamples,
    PartitionRecord,
    difference,
    read_partition,
    write_partition,
)


@st.composite
def records(draw: st.DrawFn) -> PartitionRecord:
    names = draw(st.lists(st.text(max_size=5), max_size=4))
    devices = []
    for _ in range(draw(st.integers(1, 4))):
        counts = [draw(st.integers(0, 5)) for _ in range(max(1, len(names)))]
        rows = tuple(range(sum(counts)))
        devices.append(DeviceSamples(rows=rows, counts=tuple(counts), flips=draw(st.integers(0, 3))))
    return PartitionRecord(partition="dirichlet", names=tuple(names), devices=tuple(devices))


@settings(deadline=None)
@given(record=records())
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, record: PartitionRecord) -> None:
    path = tmp_path_factory.mktemp("record") / "partition.json"
    write_partition(path, record)
    assert read_partition(path) == record and difference(record, read_partition(path)) == ""


ONE = DeviceSamples(rows=(0, 2, 5), counts=(1, 2))
TWO = DeviceSamples(rows=(1, 3, 4), counts=(3, 0))
RECORD = PartitionRecord(partition="iid", names=("a", "b"), devices=(ONE, TWO))


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (replace(RECORD, names=("a", "c")), "its classes were a, b and are a, c"),
        (
            replace(RECORD, devices=(ONE, replace(TWO, rows=(1, 3, 6)))),
            "device 1 held 3 samples .* as many, but others",
        ),
        (
            replace(RECORD, devices=(replace(ONE, rows=(0, 2)), TWO)),
            "device 0 held 3 samples and would hold 2",
        ),
        (
            replace(RECORD, devices=(ONE, replace(TWO, counts=(2, 1)))),
            r"device 1 held \[3, 0\] samples of the cl.*\[2, 1\]",
        ),
        (replace(RECORD, devices=(ONE,)), "there were 2 devices and are 1"),
    ],
)
def test_a_difference_is_named(now: PartitionRecord, words: str) -> None:
    import re

    assert re.search(words, difference(RECORD, now))


@pytest.mark.parametrize(
    "damage",
    [
        lambda values: values.pop("names"),
        lambda values: values["devices"][0].update(counts=[3]),
        lambda values: values["devices"][0].update(counts=[1, 1]),
        lambda values: values["devices"][0].update(rows=["a", "b", "c"]),
        lambda values: values.update(devices=3),
    ],
)
def test_damage_is_refused(tmp_path: Path, damage) -> None:
    path = tmp_path / "partition.json"
    write_partition(path, RECORD)
    values = json.loads(path.read_text())
    damage(values)
    path.write_text(json.dumps(values))
    with pytest.raises(RunError, match=r"partition.json is damaged"):
        read_partition(path)
    path.write_text("{")
    with pytest.raises(RunError, match=r"partition.json is damaged"):
        read_partition(path)
