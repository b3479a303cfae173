"""Devices that move what they train again and again unlike the others: found, and no others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sflam.records.deviation import COHORT, FACTOR, ROUNDS, deviating, ratios_of
from sflam.records.history import RoundRecord, record_from_dict, record_to_dict


def rounds(*lengths: tuple[float | None, ...]) -> list[RoundRecord]:
    return [
        RoundRecord(round=number, loss=1.0, participants=tuple(range(len(own))), device_moved=own)
        for number, own in enumerate(lengths)
    ]


ALIKE = (1.0, 1.1, 0.9, 1.2, 0.8)


def test_a_device_far_away_in_most_rounds_is_shown_with_its_median() -> None:
    records = rounds(*[(*ALIKE, far) for far in (5.0, 6.0, 1.0, 7.0, 1.0)])
    (found,) = deviating(records)
    assert (found.device, found.rounds, len(found.ratios)) == (5, 5, 3)
    assert found.line.startswith(
        "device 5 moved 5.71 times as far as the median device, in 3 of its 5 rounds"
    )


@pytest.mark.parametrize(
    "records",
    [
        [],
        rounds(*[(*ALIKE, 1.9)] * 5),  # as unlike devices are
        rounds(*[(*ALIKE, 9.0)] * (ROUNDS - 1)),  # too seldom
        rounds(*[(*ALIKE, 9.0)] * 3, *[(*ALIKE, 1.0)] * 4),  # in fewer than half of its rounds
        rounds(*[(1.0, 1.0, 1.0, 9.0)] * 5),  # too few devices to compare
        rounds(*[(*ALIKE, None)] * 5),
        rounds(*[(0.0,) * 6] * 5),
        rounds(*[(0.2, 0.5, 1.0, 2.0, 4.0, 9.0)] * 5),  # all are unlike
    ],
)
def test_no_other_is(records: list[RoundRecord]) -> None:
    assert deviating(records) == []


def test_a_device_that_does_not_move_is_shown_too() -> None:
    (found,) = deviating(rounds(*[(*ALIKE, 0.0)] * ROUNDS))
    assert found.device == 5 and found.ratios == [0.0] * ROUNDS


@given(st.lists(st.floats(1.0, FACTOR), min_size=COHORT, max_size=20), st.floats(1e-6, 1e6))
def test_within_the_factor_none_deviates_at_any_scale(lengths: list[float], scale: float) -> None:
    assert ratios_of({device: scale * length for device, length in enumerate(lengths)}) == {}


def test_lengths_survive_the_file() -> None:
    (record,) = rounds((1.0, None, 2.5))
    assert record_from_dict(record_to_dict(record)) == record
