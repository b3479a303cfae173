"""Means over seeds, the cost of a target, and what sets it, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console
from tests.report.charges import charge

from sflam.records.history import RoundRecord
from sflam.report.outcome import Compared, Target, first_at, targets_of, to_target
from sflam.report.terminal.comparison_table import comparison_table, device_table, target_table


def test_means_and_spread_over_seeds_by_hand() -> None:
    results = [
        {"accuracy": share, "rounds": 2, "virtual_s": 3.0, "energy_j": 1.0, "bytes_up": up, "bytes_down": 4}
        | {"device_memory": None, "device_flop": 2e12, "run_dir": "x"}
        for share, up in ((0.5, 10), (0.7, 20))
    ]
    compared = Compared(name="sflam", results=tuple(results), records=((), ()))
    result = compared.to_dict()
    assert result["accuracy"] == pytest.approx(0.6) and result["accuracy_spread"] == pytest.approx(0.02**0.5)
    assert (result["bytes_up"], result["bytes_down"], result["virtual_s"]) == (15, 4, 3.0)
    assert result["device_memory_bytes"] is None and result["runs"] == ["x", "x"]
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(
            comparison_table(
                {"sflam+equal-bandwidth": result, "central": result | {"virtual_s": None, "energy_j": None}}
            )
        )
        console.print(device_table({"sflam": result}))
    text = capture.get()
    assert "60.0 ± 127.1 %" in text and "after 2 rounds" in text and "…" not in text and "2 TFLOP" in text


def rounds(*shares: float | None) -> list[RoundRecord]:
    return [
        RoundRecord(round=n, loss=1.0, accuracy=share, bytes_up=100, charge=charge(n))
        for n, share in enumerate(shares)
    ]


def test_the_cost_of_a_target_by_hand() -> None:
    fast, slow = rounds(0.5, 0.8, 0.7), rounds(0.5, None, 0.8)
    assert first_at(fast, 0.8) == {
        "rounds": 2,
        "virtual_s": 4.0,
        "energy_j": pytest.approx(1.6),
        "bytes": 200,
    }
    assert first_at(fast, 0.81) is None
    both = to_target([fast, slow], 0.75)
    costs = ("rounds", "virtual_s", "energy_j", "bytes")
    assert both.pop("intervals").keys() == set(costs) and both == {
        "reached": 2,
        "of": 2,
        "rounds": 2.5,
        "virtual_s": 5.0,
        "energy_j": pytest.approx(2.0),
        "bytes": 250,
        "at_least": dict.fromkeys(costs),
    }
    both["intervals"] = {}
    missed = to_target([fast, rounds(0.1)], 0.75)
    assert missed == {
        "reached": 1,
        "of": 2,
        **dict.fromkeys(costs),
        "intervals": {},
        "at_least": {"rounds": 1.5, "virtual_s": 3.0, "energy_j": pytest.approx(1.2), "bytes": 150},
    }
    airless = [replace(record, charge=None) for record in fast]
    assert to_target([airless], 0.75)["rounds"] == 2 and to_target([airless], 0.75)["energy_j"] is None
    made = [
        Compared(name=name, results=({"accuracy": share},), records=())
        for name, share in (("a", 0.8), ("b", 0.6))
    ]
    assert targets_of(made) == (Target(0.95 * 0.8, "95 % of what a reaches"),)
    assert targets_of(made, [0.9, 0.8]) == (Target(0.8, "as given"), Target(0.9, "as given"))
    best = "95 % of what b reaches, the best over a network"
    assert targets_of(made, unlike=["a"]) == (
        Target(0.95 * 0.6, best),
        Target(0.95 * 0.8, "95 % of what a reaches"),
    )
    assert targets_of(made, unlike=["a", "b"]) == targets_of(made)
    rows = {"a": {"to_target": both}, "never": {"to_target": to_target([fast], 1.0)}}
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(target_table(rows, 0.75, "as given"))
    first, last = [line.split() for line in capture.get().splitlines() if line.strip()][-2:]
    assert first[0] == "a" and last[:6] == ["never", "0", "of", "1", ">", "3"]


def test_a_target_is_held_against_what_rounds_are_evaluated_on() -> None:
    """With a validation part that is the validation accuracy, whatever the test accuracy is."""
    run = [
        RoundRecord(round=n, loss=1.0, validation_loss=1.0, validation_accuracy=share, bytes_up=100)
        for n, share in enumerate((0.5, 0.8))
    ]
    cost = first_at(run, 0.75)
    assert cost is not None and cost["rounds"] == 2 and first_at(run, 0.81) is None
    made = [
        Compared(name=name, results=({"accuracy": test, "validation_accuracy": share},), records=())
        for name, share, test in (("a", 0.8, 0.1), ("b", 0.6, 0.9))
    ]
    assert targets_of(made) == (Target(0.95 * 0.8, "95 % of what a reaches on validation samples"),)
