"""Momenta of absent rows in a file: every kept checkpoint leads to its own, wherever a process was killed."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.errors import RunError
from sflam.learn.moments import BLOCK, Moments, PagedMoments

KEPT = 2
ROUNDS = st.lists(st.sets(st.integers(0, 7), max_size=3), min_size=1, max_size=12)


def memory(step, width=5):
    return {
        "step": torch.tensor(float(step)),
        "exp_avg": torch.full((width,), step / 3),
        "exp_avg_sq": torch.full((width,), step / 7, dtype=torch.float64),
    }


def same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype and torch.equal(first[name], second[name])


def holds(moments, expected):
    for row in range(8):
        own = moments.take(row)
        assert (own is None) == (row not in expected)
        if own is not None:
            same(own, expected[row])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("momenta")


@settings(max_examples=150, deadline=None)
@given(ROUNDS, st.sets(st.integers(0, 7), max_size=4), st.integers(0, KEPT - 1), st.booleans(), st.data())
def test_any_kept_table_leads_to_what_it_was_made_of(folder, rounds, after, back, gone_between, data):
    """Rows train for some rounds, others are half way through the next one, then a kept table is put back."""
    path = folder / "rows.pages"
    moments = PagedMoments(path, KEPT)
    now, kept, step = {}, [], 0
    for rows in [set(), *rounds]:
        for row in rows:
            step += 1
            now[row] = memory(step)
        away = data.draw(st.sets(st.sampled_from(sorted(rows)))) if rows and gone_between else set()
        for row in away:  # some go before the round ends
            moments.give(row, now[row], changed=True)
        kept.append(
            (copy.deepcopy(moments.state({r: now[r] for r in rows - away}, rows - away)), copy.deepcopy(now))
        )
    for row in after:
        moments.give(row, memory(1000 + row), changed=True)
    if path.exists():  # what no kept table leads to may be torn in any way
        led_to = {page for table, _ in kept[-KEPT:] for page in table["pages"].tolist()}
        with path.open("r+b") as file:
            for page in set(range(-(-path.stat().st_size // BLOCK))) - led_to:
                file.seek(page * BLOCK)
                file.write(b"\xff" * 60)
    table, expected = kept[max(-len(kept), -1 - back)]
    again = PagedMoments(path, KEPT)
    again.restore(table)
    holds(again, expected)
    again.give(0, memory(2000), changed=True)
    following = again.state({}, set())
    expected[0] = memory(2000)
    third = PagedMoments(path, KEPT)
    third.restore(following)
    holds(third, expected)


def test_the_file_has_a_page_for_each_row_and_a_few_more(tmp_path):
    moments, step = PagedMoments(tmp_path / "rows.pages", KEPT), 0
    for number in range(60):
        rows = {number % 10, (3 * number) % 10}
        step += 1
        moments.state({row: memory(step) for row in rows}, rows)
    pages = -(-(tmp_path / "rows.pages").stat().st_size // BLOCK)
    assert 10 <= pages <= 10 + 2 * KEPT


def test_rows_that_did_not_change_are_not_written(tmp_path):
    moments = PagedMoments(tmp_path / "rows.pages", KEPT)
    first = moments.state({1: memory(1), 2: memory(2)}, {1, 2})
    moments.give(1, memory(99), changed=False)
    second = moments.state({2: memory(98)}, set())
    assert first["table"] == second["table"] and torch.equal(first["pages"], second["pages"])
    holds(moments, {1: memory(1), 2: memory(2)})


def test_a_damaged_page_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "rows.pages"
    moments = PagedMoments(path, KEPT)
    table = moments.state({1: memory(1), 2: memory(2)}, {1, 2})
    with path.open("r+b") as file:
        file.seek(5)
        file.write(b"\xff")
    with pytest.raises(RunError, match=r"rows\.pages is damaged \(row 1\)"):
        moments.take(1)
    same(moments.take(2), memory(2))
    with path.open("r+b") as file:
        file.truncate(BLOCK)
    with pytest.raises(ValueError, match="does not hold the momenta"):
        PagedMoments(path, KEPT).restore(table)
    path.unlink()
    with pytest.raises(ValueError, match="does not hold the momenta"):
        PagedMoments(path, KEPT).restore(table)


def test_a_checkpoint_with_the_momenta_themselves_is_read(tmp_path):
    """As checkpoints were before there was a file."""
    kept = Moments().state({3: memory(3), 4: memory(4)}, set())
    moments = PagedMoments(tmp_path / "rows.pages", KEPT)
    moments.restore(kept)
    holds(moments, {3: memory(3), 4: memory(4)})
