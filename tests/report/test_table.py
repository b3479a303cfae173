"""The table and its totals, by hand arithmetic."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType
from tests.report.charges import charge

from sflam.records.history import RoundRecord
from sflam.report.terminal.jobs_table import jobs_table
from sflam.report.terminal.run_table import FIRST, LAST, rounds_table, summary
from sflam.report.totals import decimal, duration, percent, totals


def records(count: int) -> list[RoundRecord]:
    return [
        RoundRecord(
            round=number,
            loss=1.0 / (number + 1),
            accuracy=0.5 + 0.01 * number if number % 2 == 0 else None,
            samples=10,
            device_steps=4,
            bytes_up=1000,
            bytes_down=2000,
            adapter_bytes_up=30,
            adapter_bytes_down=40,
            residual_bytes=5,
            seconds=0.5,
        )
        for number in range(count)
    ]


def rendered(table: RenderableType) -> list[str]:
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get().splitlines()


def test_totals_are_the_sums() -> None:
    sums = totals(records(4))
    assert (sums.rounds, sums.samples, sums.device_steps, sums.seconds) == (4, 40, 16, 2.0)
    assert (sums.bytes_up, sums.bytes_down, sums.adapter_bytes) == (4000, 8000, 300)
    assert sums.total_bytes == 12_300 and sums.steps_per_second == 8.0
    assert (sums.accuracy, sums.best_accuracy, sums.best_round) == (0.52, 0.52, 2)


def charged(count: int) -> list[RoundRecord]:
    return [replace(item, charge=charge(item.round)) for item in records(count)]


def test_a_simulated_run_shows_its_clock_and_energy() -> None:
    sums = totals(charged(4))
    assert (sums.virtual_s, sums.energy_j) == (8.0, pytest.approx(4 * 0.8))
    lines = rendered(rounds_table(charged(4)))
    header = next(line for line in lines if "round" in line)
    assert header.split() == "round loss accuracy devices up down virtual time energy".split()
    assert max(map(len, lines)) <= 80
    total = next(line for line in lines if "total" in line)
    assert "8.00 s" in total and "3.2 J" in total
    assert "8.00 s and 3.2 J by the model of the network" in " ".join(summary(charged(4)).split())
    assert (
        "virtual" not in "".join(rendered(rounds_table(records(4)))) and totals(records(4)).virtual_s is None
    )


def test_totals_of_nothing() -> None:
    sums = totals([])
    assert sums.total_bytes == 0 and sums.steps_per_second == 0 and sums.best_round is None
    assert summary([]) == "no rounds yet"


def test_the_best_round_is_the_first_of_equals_and_never_a_diverged_one() -> None:
    shares = [0.5, 0.9, 0.9, math.nan, None, 0.7]
    sums = totals([RoundRecord(round=i, loss=1.0, accuracy=share) for i, share in enumerate(shares)])
    assert (sums.best_accuracy, sums.best_round, sums.accuracy) == (0.9, 1, 0.7)


def test_every_round_has_its_row_in_eighty_columns() -> None:
    lines = rendered(rounds_table(records(6), "a run"))
    assert lines[0].strip() == "a run"
    assert max(map(len, lines)) <= 80 and not any("…" in line for line in lines)
    rows = [line.split() for line in lines]
    assert ["1", "1.0000", "-", "50.0", "%", "1.00", "kB", "2.00", "kB", "75", "B", "0.50", "s"] in rows
    assert ["2", "0.5000", "-", "-", "1.00", "kB", "2.00", "kB", "75", "B", "0.50", "s"] in rows
    assert ["total", "6.00", "kB", "12.00", "kB", "450", "B", "3.00", "s"] in rows


@pytest.mark.parametrize("count", [FIRST + LAST, FIRST + LAST + 1, 200])
def test_long_runs_show_their_ends(count: int) -> None:
    first = [line.split()[0] for line in rendered(rounds_table(records(count))) if line.split()]
    numbers = [int(word) for word in first if word.isdigit()]
    if count == 200:
        assert numbers == [*range(1, FIRST + 1), *range(200 - LAST + 1, 201)] and "..." in first
    else:
        assert numbers == list(range(1, count + 1)) and "..." not in first


def test_no_rounds_is_reported() -> None:
    assert "no rounds yet" in "\n".join(rendered(rounds_table([])))


def test_the_summary_is_one_sentence() -> None:
    assert summary(records(4)) == (
        "accuracy 52.0 % after 4 rounds, 12.30 kB over the network, 16 device steps (8/s), 40 samples"
    )
    worse = RoundRecord(round=4, loss=1.0, accuracy=0.4)
    assert summary([*records(4), worse]).startswith("accuracy 40.0 % (best 52.0 % in round 3) after 5 rounds")


def test_numbers_for_people() -> None:
    assert [percent(None), percent(0.9123), percent(1)] == ["-", "91.2 %", "100.0 %"]
    assert [decimal(None), decimal(0.5), decimal(12345.0), decimal(math.nan)] == [
        "-",
        "0.5000",
        "1.234e+04",
        "nan",
    ]
    assert [duration(value) for value in (0.42, 9.999, 59.96, 75, 3700)] == [
        "0.42 s",
        "10.0 s",
        "1 min 00 s",
        "1 min 15 s",
        "1 h 01 min",
    ]


def test_the_worst_device_is_named() -> None:
    last = replace(
        records(1)[0],
        participants=(1, 4, 6, 7),
        device_samples=(5, 5, 0, 5),
        device_loss=(0.25, 1.5, None, 0.5),
    )
    lines = " ".join(" ".join(rendered(rounds_table([last], devices=[0.9, math.nan, 0.5, 0.7]))).split())
    assert (
        "test accuracy on each device's own mix of classes: worst 50.0 % (device 2), median 70.0 %, best 90.0 % "
        "(device 0)" in lines
    )
    assert "training loss of a device in the last round: worst 1.5000 (device 4), median 0.5000" in lines
    alone = replace(last, participants=(1,), device_samples=(5,), device_loss=(0.25,))
    for few in ([alone], records(2), []):
        assert "training loss of a device" not in " ".join(rendered(rounds_table(few, devices=[0.9])))


def test_jobs_of_one_server_are_a_row_each() -> None:
    rows = [("digits", "ended", 6, 6, 0.958, "runs/both/digits"), ("w", "failed", 0, 12, None, "runs/both/w")]
    lines = [line.split() for line in rendered(jobs_table(rows)) if line.strip(" ─")]
    assert lines[1] == ["digits", "ended", "6/6", "95.8", "%", "runs/both/digits"]
    assert lines[2][:3] == ["w", "failed", "0/12"] and lines[2][-1] == "runs/both/w" and len(lines) == 3
