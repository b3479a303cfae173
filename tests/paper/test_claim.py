"""Verdicts on claims: the rule at its edges, every quantity, and claims that cannot be."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sflam.errors import ConfigError
from sflam.paper.claim import Claim, ClaimVerdict, judged, verdict_of
from sflam.report.statistics import Interval, interval

RANKS = [ClaimVerdict.FAILS, ClaimVerdict.UNDECIDED, ClaimVerdict.IN_ORDER, ClaimVerdict.HOLDS]


def claim(**keys: object) -> Claim:
    given = {
        "paper": "P",
        "where": "abstract",
        "says": "s",
        "part": "p",
        "metric": "m",
        "arms": ("a",),
        "against": "b",
    }
    return Claim(**(given | keys))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mean", "half", "number", "verdict"),
    [
        (0.5, 0.1, None, ClaimVerdict.IN_ORDER),
        (0.5, 0.1, 0.4, ClaimVerdict.HOLDS),  # beats it
        (0.5, 0.1, 0.55, ClaimVerdict.HOLDS),  # contains it
        (0.5, 0.1, 0.708, ClaimVerdict.IN_ORDER),
        (0.5, 0.6, 0.708, ClaimVerdict.UNDECIDED),  # a wide interval contains all: it decides nothing
        (-0.5, 0.1, 0.708, ClaimVerdict.FAILS),
        (0.0, None, 0.5, ClaimVerdict.FAILS),
        (0.5, None, 0.5, ClaimVerdict.HOLDS),
        (1e-17, 1e-17, 0.5, ClaimVerdict.FAILS),  # rounding is no reduction
    ],
)
def test_the_rule(mean: float, half: float | None, number: float | None, verdict: ClaimVerdict) -> None:
    assert verdict_of(Interval(mean, half, 3), "more", 0.0, number) is verdict
    less = None if number is None else -number
    assert verdict_of(Interval(-mean, half, 3), "less", 0.0, less) is verdict


@given(
    st.floats(-2, 2),
    st.floats(-2, 2),
    st.floats(0, 1),
    st.floats(-1, 1),
    st.one_of(st.none(), st.floats(-1, 1)),
)
def test_more_is_never_judged_worse(
    one: float, other: float, half: float, order: float, number: float | None
) -> None:
    ranks = [
        RANKS.index(verdict_of(Interval(mean, half, 3), "more", order, number))
        for mean in sorted((one, other))
    ]
    assert ranks == sorted(ranks)


@pytest.mark.parametrize(("quantity", "mean"), [("difference", -1.5), ("ratio", 0.375), ("reduction", 0.625)])
def test_quantities_are_paired_seed_by_seed(quantity: str, mean: float) -> None:
    """Seeds that differ tenfold do not widen the interval of a ratio that all of them share."""
    found = judged(claim(quantity=quantity), {"a": {"m": [0.3, 1.5]}, "b": {"m": [0.8, 4.0]}})
    assert found.measured is not None and found.measured.mean == pytest.approx(mean if mean > -1 else -1.5)
    if quantity != "difference":
        assert found.measured.half == pytest.approx(0, abs=1e-12)


@given(st.permutations([1.0, 2.0, 3.0, 4.0]))
def test_a_trend_is_spearmans_rank_correlation(values: list[float]) -> None:
    measured = {f"x={place}": {"m": [value]} for place, value in enumerate(values)}
    found = judged(claim(arms=tuple(measured), against="", quantity="trend", wants="more"), measured)
    squares = sum((place + 1 - value) ** 2 for place, value in enumerate(values))
    assert found.measured is not None
    assert found.measured.mean == pytest.approx(1 - 6 * squares / (4 * 15))


def test_equal_values_have_no_trend() -> None:
    measured = {name: {"m": [2.0]} for name in "abc"}
    found = judged(claim(arms=("a", "b", "c"), against="", quantity="trend"), measured)
    assert found.measured == interval([0.0]) and found.verdict is ClaimVerdict.FAILS


def test_a_value_is_held_against_the_papers_number() -> None:
    held = claim(against="", quantity="value", number=100.0)
    assert judged(held, {"a": {"m": [93.0]}}).verdict is ClaimVerdict.HOLDS
    assert judged(held, {"a": {"m": [611.0]}}).verdict is ClaimVerdict.FAILS
    assert math.isclose(held.turns, 100)


def test_what_a_seed_has_not_is_not_measured() -> None:
    found = judged(claim(), {"a": {"m": [1.0, None]}, "b": {"m": [2.0, 2.0]}})
    assert (found.verdict, found.measured) == (ClaimVerdict.NOT_MEASURED, None)
    assert "m is missing for a seed of a, b" in found.why
    assert judged(claim(), None, "no data").why == "no data"
    assert judged(Claim(paper="P", where="w", says="s", reason="wants a GPU"), {}).why == "wants a GPU"


def test_an_arm_is_named_by_its_first_word_where_that_is_clear() -> None:
    values = {"m": [1.0]}
    found = judged(claim(), {"a learn.lr=0.1": values, "b": {"m": [4.0]}})
    assert found.measured is not None and found.measured.mean == 0.25
    with pytest.raises(ConfigError, match="arm 'a' is several of 'a x=1', 'a x=2'"):
        judged(claim(), {"a x=1": values, "a x=2": values, "b": values})
    with pytest.raises(ConfigError, match="arm 'b' is none of 'a'"):
        judged(claim(), {"a": values})
    with pytest.raises(ConfigError, match="a has no metric 'm'; give one of n"):
        judged(claim(), {"a": {"n": [1.0]}, "b": values})


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"quantity": "size"}, "quantity is 'size'"),
        ({"wants": "best"}, "wants is 'best'"),
        ({"against": ""}, "a ratio needs a key against"),
        ({"quantity": "value", "number": 1.0}, "a value has no key against"),
        ({"quantity": "value", "against": ""}, "a value needs a number or an order"),
        ({"quantity": "trend", "against": "", "arms": ("a", "b")}, "a trend over 2 arms is none"),
        ({"arms": ("a", "c")}, "a ratio is of one arm, and 2 are named"),
        ({"metric": ""}, "it names no part, metric and arm"),
    ],
)
def test_a_claim_that_cannot_be(keys: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        claim(**keys)


def test_verdicts_are_all_reached() -> None:
    cases = itertools.product((-1.0, 0.5, 2.0), (0.1, 0.7), (None, 1.0))
    found = {verdict_of(Interval(mean, half, 3), "more", 0.0, number) for mean, half, number in cases}
    assert found == set(RANKS)
