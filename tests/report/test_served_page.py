"""What the page and the table say of a served run: phases expected beside measured, and how devices fared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sflam.records.history import RoundRecord
from sflam.records.served_round import CutMove, Prediction, ServedRound, ServerMove, errors, of_those
from sflam.report.pages.served import served_part
from sflam.report.terminal.loop_lines import loop_lines

PHASES = {
    "compute_s": (1.0, 2.0),
    "up_s": (0.5, 0.25),
    "wait_s": (0.1, 0.1),
    "down_s": (0.2, 0.2),
    "adapter_s": (0.1, 0.3),
}
EXPECTED = Prediction(
    source="measured", seconds=2.5, **{name: (each[1], each[0]) for name, each in PHASES.items()}
)
MEASURED = ServedRound(
    seconds=3.0, openings=1, server_s=0.1, finish=(1.9, 2.85), upload_s=(0.6, 0.5), away_s=(1.2, 2.3),
    bytes_up=(10, 20), bytes_down=(10, 20), payload_up=(80, 160), payload_down=(80, 160), cuts=(1, 1),
    bits_up=(4, 6), bits_down=(8, 8), **PHASES, memory=(0, 5 << 20), temperature=(None, 81.6), throttled=(False, True),
    battery=(0.5, None), predicted=EXPECTED,
)  # fmt: skip
RECORDS = [RoundRecord(round=number, loss=1.0, participants=(0, 3), measured=MEASURED) for number in range(2)]


def test_phases_of_a_served_run_stand_beside_what_was_expected():
    part = served_part(RECORDS)
    assert part["served_last"] == 2 and len(part["served_rounds"]) == 1
    table = part["served_phases"]
    assert table.head[:3] == ["device", "", "computing"]
    assert [row[0] for row in table.rows] == ["0", "", "3", ""]
    assert [row[1] for row in table.rows] == ["measured", "expected"] * 2
    assert [row[2] for row in table.rows] == ["1.00 s", "2.00 s", "2.00 s", "1.00 s"]
    assert table.rows[2][-2:] == ["6", "8"]
    assert part["served_devices"].rows == [
        ["0", "-", "-", "-", "50 %"],
        ["3", "5.24 MB", "82 °C", "in 2 rounds", "-"],
    ]


def test_devices_that_moved_are_listed_with_the_reason():
    cut = CutMove(round=1, device=3, before=2, cut=1, why="memory", detail="1 MB is free")
    server = ServerMove(round=0, device=0, before=1, server=0, why="ordered")
    records = [replace(RECORDS[0], measured=replace(MEASURED, moves=(cut,), server_moves=(server,)))]
    part = served_part(records)
    assert part["served_moves"].rows == [["2", "3", "2", "1", "it is short of memory: 1 MB is free"]]
    assert part["served_moves"].head[2:4] == ["blocks before", "blocks"]
    assert part["server_moves"].rows == [["1", "0", "1", "0", "as the operator ordered"]]
    assert part["server_moves"].head[2:4] == ["server before", "server"]


def test_a_run_that_was_not_served_or_not_measured_has_no_such_part():
    older = replace(MEASURED, **dict.fromkeys(PHASES, ()), predicted=None)
    assert served_part([RoundRecord(round=0, loss=1.0)]) == {"served": False}
    unmeasured = RoundRecord(round=0, loss=1.0, participants=(0, 3), measured=older)
    assert served_part([unmeasured]) == {"served": False}


def test_how_far_what_was_expected_was_off():
    assert errors([MEASURED, replace(MEASURED, predicted=None)]) == [pytest.approx(2.5 / 3 - 1)]
    assert any("16.7 % more or less than was expected" in line for line in loop_lines(RECORDS))


def test_what_was_expected_of_those_who_delivered():
    found = of_those((0, 3), EXPECTED, [3])
    assert found.compute_s == (1.0,) and found.seconds == 2.5
