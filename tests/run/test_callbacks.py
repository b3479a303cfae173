"""What a run calls while it trains: every mini-batch, evaluation and round, in order, whatever the method."""

from __future__ import annotations

from pathlib import Path

import pytest

import sflam
from sflam.learn.watching import learned
from sflam.records.history import RoundRecord
from sflam.run.finish import Result
from sflam.run.run import Run


class Noted(sflam.Callback):
    """Notes every call."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.losses: dict[int, float] = {}
        self.rows: dict[int, int] = {}

    def began(self, run: Run) -> None:
        self.calls.append("began")

    def stepped(self, round: int, device: int, loss: float, rows: int) -> None:
        self.calls.append(f"step {round}")
        self.losses[round] = self.losses.get(round, 0.0) + loss * rows
        self.rows[round] = self.rows.get(round, 0) + rows

    def evaluated(self, record: RoundRecord) -> None:
        assert record.accuracy is not None
        self.calls.append(f"evaluated {record.round}")

    def ended_round(self, record: RoundRecord) -> None:
        self.calls.append(f"round {record.round}")
        assert self.losses[record.round] / self.rows[record.round] == pytest.approx(record.loss)
        assert self.rows[record.round] == record.samples

    def finished(self, result: Result) -> None:
        assert Path(result.run_dir, "result.json").is_file()
        self.calls.append("finished")


@pytest.mark.parametrize("method", ["sflam", "sfl-v2", "fedlora", "sl", "central"])
def test_everything_is_called_in_order(small: tuple[str, ...], tmp_path: Path, method: str) -> None:
    noted = Noted()
    keys = ("learn.rounds=2", "learn.evaluate_every=2", f"learn.method={method}")
    sflam.train(sflam.load(None, [*small, *keys]), tmp_path / "run", callbacks=[noted, sflam.Callback()])
    assert [call for call in noted.calls if not call.startswith("step")] == [
        "began",
        "round 0",
        "evaluated 1",
        "round 1",
        "finished",
    ]
    assert noted.calls[1] == "step 0" and noted.calls[noted.calls.index("round 0") + 1] == "step 1"
    learned(0, 1.0, 1)  # after the run no one is called
    assert noted.calls[-1] == "finished"


def test_callbacks_change_nothing_and_a_run_that_one_ends_goes_on(
    small: tuple[str, ...], tmp_path: Path
) -> None:
    class Enough(sflam.Callback):
        def ended_round(self, record: RoundRecord) -> None:
            raise KeyboardInterrupt

    job = sflam.load(None, [*small, "learn.rounds=2", "learn.canonical=true"])
    with pytest.raises(KeyboardInterrupt):
        sflam.train(job, tmp_path / "run", callbacks=[Enough()])
    run = sflam.resume(tmp_path / "run")
    assert len(run.records) == 1
    assert len(list(run.rounds())) == 1
    whole = sflam.train(job, tmp_path / "whole")
    assert run.finish().loss == whole.loss


def test_a_run_that_ends_early_is_called_stopped(small: tuple[str, ...], tmp_path: Path) -> None:
    """By what a callback raises, too; the error goes on, and the run with ``sflam.resume``."""

    class Failing(Noted):
        def ended_round(self, record: RoundRecord) -> None:
            super().ended_round(record)
            raise OSError("no room")

        def stopped(self, error: BaseException) -> None:
            self.calls.append(f"stopped: {error}")

    noted = Failing()
    with pytest.raises(OSError, match="no room"):
        sflam.train(sflam.load(None, [*small, "learn.rounds=2"]), tmp_path / "run", callbacks=[noted])
    assert noted.calls[-1] == "stopped: no room" and "finished" not in noted.calls
    assert len(sflam.resume(tmp_path / "run").records) == 1
