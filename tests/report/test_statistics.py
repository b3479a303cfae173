"""Intervals, paired differences and censored costs, by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.report.plus_minus import plus_minus
from sflam.report.statistics import Interval, TargetCost, censored, half_width, interval, paired

FINITE = st.floats(-1e6, 1e6)


def test_an_interval_by_hand() -> None:
    """Of 1, 2, 3: mean 2, deviation 1; t of two degrees at 97.5 % is 4.302653 in every table."""
    found = interval([1.0, 2.0, 3.0])
    assert found is not None and (found.mean, found.n) == (2.0, 3)
    assert found.half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert found.to_dict() == {
        "mean": 2.0,
        "low": pytest.approx(-0.484138, abs=1e-6),
        "high": pytest.approx(4.484138, abs=1e-6),
        "n": 3,
    }
    assert half_width(1.0, 2) == pytest.approx(12.706205 / math.sqrt(2), rel=1e-6)
    assert half_width(1.0, 2, level=0.5) == pytest.approx(1.0 / math.sqrt(2))  # Cauchy: quartile 1


def test_one_value_has_no_interval_and_a_missing_one_no_mean() -> None:
    assert interval([4.0]) == Interval(4.0, None, 1)
    assert interval([4.0]).to_dict() == {"mean": 4.0, "low": None, "high": None, "n": 1}  # type: ignore[union-attr]
    assert interval([]) is None and interval([1.0, None]) is None
    assert half_width(1.0, 1) == math.inf


def test_paired_differences_by_hand() -> None:
    """What both seeds share cancels: 10 and 20 against 9 and 18 differ by 1 and 2."""
    found = paired([10.0, 20.0], [9.0, 18.0])
    assert found is not None and (found.mean, found.n) == (1.5, 2)
    assert found.half == pytest.approx(12.706205 * math.sqrt(0.5) / math.sqrt(2), rel=1e-6)
    assert paired([1.0, None, 3.0], [0.0, 5.0, None]) == Interval(1.0, None, 1)
    assert paired([None], [1.0]) is None


def test_a_seed_that_misses_counts_with_all_it_spent() -> None:
    assert censored([2.0, None, 4.0], [9.0, 6.0, 9.0]) == TargetCost(2, 3, None, 4.0)
    assert censored([None, None], [5.0, 7.0]) == TargetCost(0, 2, None, 6.0)
    assert censored([None, 1.0], [None, 3.0]) == TargetCost(1, 2, None, None)
    assert censored([2.0, 4.0], [9.0, 9.0]) == TargetCost(2, 2, interval([2.0, 4.0]), None)


@settings(deadline=None)
@given(st.lists(FINITE, min_size=2, max_size=9), FINITE)
def test_shifting_values_shifts_the_interval_and_leaves_its_width(values: list[float], by: float) -> None:
    before, after = interval(values), interval([value + by for value in values])
    assert before is not None and after is not None and before.half is not None and after.half is not None
    assert after.mean == pytest.approx(before.mean + by, abs=1e-6)
    assert after.half == pytest.approx(before.half, rel=1e-6, abs=1e-4)


@settings(deadline=None)
@given(st.lists(st.tuples(FINITE, FINITE), min_size=2, max_size=9))
def test_a_difference_is_that_of_the_means_and_turns_with_its_sides(both: list[tuple[float, float]]) -> None:
    ours, theirs = [a for a, _ in both], [b for _, b in both]
    one, other = paired(ours, theirs), paired(theirs, ours)
    assert one is not None and other is not None
    assert one.mean == pytest.approx(-other.mean, abs=1e-6) and one.half == pytest.approx(other.half)


@pytest.mark.parametrize(
    ("mean", "half", "unit", "shown"),
    [
        (12.345, 0.42, "s", "12.3 ± 0.4 s"),
        (12.345, 0.042, "s", "12.35 ± 0.04 s"),
        (0.912, 0.0123, "%", "91.2 ± 1.2 %"),
        (1234.0, 56.0, "J", "1.23 ± 0.06 kJ"),
        (1.2e6, 3.4e4, "B", "1.20 ± 0.03 MB"),
        (2.5, 6.3, "", "2.5 ± 6.3"),
        (300.0, 30.0, "s", "5.0 ± 0.5 min"),
        (1e6, 0.0, "B", "1.00 MB"),
    ],
)
def test_a_figure_is_written_with_its_interval(mean: float, half: float, unit: str, shown: str) -> None:
    assert plus_minus({"mean": mean, "low": mean - half, "high": mean + half}, unit) == shown


def test_a_difference_is_written_with_its_sign() -> None:
    assert plus_minus({"mean": 0.012, "low": 0.002, "high": 0.022}, "%", signed=True) == "+1.2 ± 1.0 points"
    assert plus_minus({"mean": -3.0, "low": None, "high": None}, "s", signed=True) == "-3.00 s"
    assert plus_minus(None, "s") == "-" and plus_minus(0.5, "%") == "50.0 %"
