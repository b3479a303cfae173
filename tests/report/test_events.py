"""The TensorBoard events hold every measured number of every round."""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.report.charges import charge

from sflam.errors import RunError
from sflam.records.history import RoundRecord

events = pytest.importorskip("sflam.report.tensorboard")


def logged(folder: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Read the event files as TensorBoard does: length, its checksum, the event, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted((folder / "events").iterdir()):
        raw = path.read_bytes()
        while len(raw) >= 16 and len(raw) >= 16 + (length := struct.unpack("<Q", raw[:8])[0]):
            event = Event.FromString(raw[12 : 12 + length])
            raw = raw[16 + length :]
            if event.HasField("summary"):
                yield event.step, {value.tag: value.simple_value for value in event.summary.value}


def test_each_round_is_one_step_with_its_scalars(tmp_path: Path) -> None:
    record = RoundRecord(round=3, loss=0.5, accuracy=0.75, bytes_up=100, device_steps=8, seconds=2.0)
    with events.Events(tmp_path) as log:
        log.add(record)
        log.add(RoundRecord(round=4, loss=math.nan))
    seen: dict[int, dict[str, float]] = {}
    for step, values in logged(tmp_path):
        seen.setdefault(step, {}).update(values)
    assert seen[3] == pytest.approx(events.scalars(record))
    assert seen[3]["loss/train"] == 0.5 and seen[3]["accuracy/test"] == 0.75
    assert seen[3]["speed/device_steps_per_second"] == 4.0
    assert "loss/test" not in seen[3] and "aggregation/error" not in seen[3]
    assert not any(tag.startswith("virtual") for tag in seen[3])
    assert events.scalars(replace(record, charge=charge(3)))["virtual/clock"] == 8.0
    assert math.isnan(seen[4]["loss/train"]) and "accuracy/test" not in seen[4]


def test_a_round_is_readable_before_the_run_ends(tmp_path: Path) -> None:
    log = events.Events(tmp_path)
    log.add(RoundRecord(round=0, loss=0.5))
    end = time.monotonic() + 20
    while not any(values.get("loss/train") == 0.5 for _, values in logged(tmp_path)):
        assert time.monotonic() < end
        time.sleep(0.1)
    log.close()


def test_a_folder_that_cannot_be_written_is_clear(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="choose another run folder"):
        events.Events(tmp_path / "file")
