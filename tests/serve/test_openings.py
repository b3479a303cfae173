"""Every opening of a round is counted for every device that was asked, over restarts of the server."""

from __future__ import annotations

import pytest

from sflam.errors import ServeError
from sflam.serve.openings import Openings


def test_openings_are_counted_per_device_and_round_over_restarts(tmp_path):
    path = tmp_path / "openings.jsonl"
    first = Openings(path)
    first.add(0, (0, 1))
    first.add(1, (1, 2))
    again = Openings(path)
    assert again.asked(1) == {1: 1, 2: 1}
    again.add(1, (2, 0))
    assert again.asked(1) == Openings(path).asked(1) == {0: 1, 1: 1, 2: 2}
    assert again.asked(0) == {0: 1, 1: 1} and again.asked(5) == {}


def test_a_line_that_was_torn_began_no_opening(tmp_path):
    path = tmp_path / "openings.jsonl"
    Openings(path).add(3, (0,))
    with path.open("a") as file:
        file.write("[3, [0, 1")
    assert Openings(path).asked(3) == {0: 1}


@pytest.mark.parametrize("line", ["{", "[1]", '["x", "y"]', "7"])
def test_a_damaged_file_is_one_line(tmp_path, line):
    path = tmp_path / "openings.jsonl"
    path.write_text(f"{line}\n")
    with pytest.raises(ServeError, match="put it back, or start a new run"):
        Openings(path)


def test_without_a_file_they_are_kept_in_memory():
    found = Openings()
    found.add(0, (2, 1))
    assert found.asked(0) == {1: 1, 2: 1}
