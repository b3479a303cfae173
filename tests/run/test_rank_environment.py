"""An environment that names ranks which are not there: one line, and no traceback."""

from __future__ import annotations

import pytest

from tests.conftest import Cli, assert_refused


@pytest.mark.parametrize(
    ("rank", "size", "message"),
    [
        (
            "1",
            "2",
            r"the other processes cannot be found \(MASTER_ADDR expected, but not set\); start with torchrun",
        ),
        (
            "0",
            "2",
            r"the other processes cannot be found \(MASTER_ADDR expected, but not set\); start with torchrun",
        ),
        ("first", "2", "RANK is 'first' and WORLD_SIZE '2', no numbers"),
    ],
)
def test_ranks_that_another_program_set(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, rank: str, size: str, message: str
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert_refused(cli("train", "--set", "learn.rounds=1"), message)
