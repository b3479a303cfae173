"""Progress goes to its stream only: a line per round, or a bar on a terminal."""

from __future__ import annotations

import io

import pytest

from sflam.records.history import RoundRecord
from sflam.report.terminal.live_bar import NOTEBOOKS, animates
from sflam.report.terminal.progress import Progress
from sflam.report.terminal.runs_progress import RunsProgress

RECORD = RoundRecord(
    round=0,
    loss=0.5,
    accuracy=0.9123,
    device_steps=40,
    bytes_up=2_000_000,
    bytes_down=3_000_000,
    adapter_bytes_up=500_000,
    adapter_bytes_down=250_000,
    residual_bytes=250_000,
    seconds=2.0,
)
UNEVALUATED = RoundRecord(round=1, loss=0.25)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NOTEBOOKS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def test_one_plain_line_per_round_on_stderr_and_nothing_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(2) as progress:
        progress.update(RECORD)
        progress.update(UNEVALUATED)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "round 1/2: loss 0.5000, accuracy 91.2 %, 20 steps/s, up 2.50 MB, down 3.50 MB",
        "round 2/2: loss 0.2500, accuracy 91.2 %, 0 steps/s, up 2.50 MB, down 3.50 MB",
    ]


def test_runs_at_once_are_lines_with_their_names_on_a_terminal_too() -> None:
    stream = Terminal()
    with Progress(2, stream=stream, label="one") as one, Progress(3, stream=stream, label="two") as two:
        one.update(RECORD)
        two.update(UNEVALUATED)
    lines = stream.getvalue().splitlines()
    assert [line.partition(", ")[0] for line in lines] == [
        "one: round 1/2: loss 0.5000",
        "two: round 1/3: loss 0.2500",
    ]
    assert "\x1b" not in stream.getvalue()


def test_a_resumed_run_counts_on() -> None:
    stream = io.StringIO()
    with Progress(3, resumed=[RECORD], stream=stream) as progress:
        progress.update(UNEVALUATED)
    assert stream.getvalue().startswith("round 2/3: loss 0.2500, accuracy 91.2 %")
    assert "up 2.50 MB" in stream.getvalue()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_gets_lines_where_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """``!sflam train`` runs in a pseudo-terminal whose every frame would stay in the cell."""
    monkeypatch.setenv("TERM", "xterm-color")
    assert animates(Terminal())
    monkeypatch.setenv(name, "1")
    stream = Terminal()
    with Progress(1, stream=stream) as progress:
        progress.update(RECORD)
    assert stream.getvalue().count("\n") == 1 and "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_quiet_is_silent(stream: io.StringIO) -> None:
    with Progress(1, quiet=True, stream=stream) as progress:
        progress.update(RECORD)
    assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar_that_survives_an_interrupt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    with pytest.raises(KeyboardInterrupt), Progress(2, stream=stream) as progress:
        progress.update(RECORD)
        raise KeyboardInterrupt
    assert "round 1/2" in stream.getvalue() and "down 3.50 MB" in stream.getvalue()
    assert stream.getvalue().count("\x1b[?25l") == stream.getvalue().count("\x1b[?25h"), (
        "the cursor is shown again"
    )
    assert capsys.readouterr() == ("", "")


def test_many_runs_are_a_line_each_or_one_bar() -> None:
    plain, terminal = io.StringIO(), Terminal()
    for stream in (plain, terminal):
        with RunsProgress(6, 3, stream=stream) as shown:
            shown.on_event("a", "finished", 2)
            for what, rounds in (("started", 0), ("round", 1), ("round", 2), ("done", 2)):
                shown.on_event("b", what, rounds)
            shown.on_event("c", "resumed", 1)
    assert plain.getvalue().splitlines() == [
        "a: finished",
        "b: started",
        "b: done, 2/3 runs, 4/6 rounds",
        "c: resumed",
    ]
    assert "2/3 runs" in terminal.getvalue() and "round 5/6" in terminal.getvalue()
