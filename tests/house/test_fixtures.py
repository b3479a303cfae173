"""What the tests leave out, they leave out where nothing is new in it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from tests.conftest import DOT, Save, kind_of
from tests.report.charges import charge

from sflam.records.history import RoundRecord
from sflam.report.charts import figure
from sflam.run import finish

RECORD = RoundRecord(round=3, loss=1.5, participants=(0, 1), charge=charge(0))
UNLIKE = {
    "not finite": replace(RECORD, loss=float("nan")),
    "endless": replace(RECORD, loss=float("inf")),
    "negative": replace(RECORD, loss=-1.5),
    "zero": replace(RECORD, loss=0.0),
    "more devices": replace(RECORD, participants=(0, 1, 2)),
    "evaluated": replace(RECORD, test_loss=1.5),
    "no network": replace(RECORD, charge=None),
}


@pytest.mark.parametrize("record", UNLIKE.values(), ids=UNLIKE)
def test_a_chart_is_built_again_where_its_data_are_of_another_kind(record: RoundRecord) -> None:
    assert kind_of([record]) != kind_of([RECORD]) != kind_of([RECORD, RECORD])
    assert kind_of([replace(RECORD, loss=2.5)]) == kind_of([RECORD])


def test_the_chart_of_a_kind_is_built_once_and_whenever_it_is_rendered(
    unrendered: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [replace(RECORD, round=number, loss=1.5 + number) for number in range(7)]
    first, again = (finish.draw_curves(records, title="as long", method="sl") for _ in range(2))
    assert first is not None and again is None
    figure.save(again, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == DOT
    monkeypatch.setattr(figure, "save", unrendered)
    drawn = finish.draw_curves(records, title="as long", method="sl")
    figure.save(drawn, tmp_path / "b.png")
    assert (tmp_path / "b.png").stat().st_size > 1000


def test_nothing_that_is_closed_is_written_to_the_disk(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        os.fsync(file)
        os.fsync(file.fileno())
        number = file.fileno()
    with pytest.raises(OSError):
        os.fsync(number)
