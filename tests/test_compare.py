"""Methods side by side: equal samples, cached runs, means by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from sflam import compare, config, history
from sflam.history import RoundRecord
from sflam.report.comparison import comparison_table, draw_comparison
from tests.conftest import Cli, assert_refused, files, sets
from tests.report.charges import charge

METHODS = ("sflam", "sl", "fedlora", "local", "central")


def test_a_comparison_is_fair_cached_and_goes_on(cli: Cli, small: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    words = [*sets(*small, "learn.rounds=1", "learn.local_steps=0"), "--out", folder, "--json"]
    first = cli("compare", *words, "--methods", ",".join(METHODS))
    assert first.code == 0 and sum(line.endswith(": started") for line in first.err) == 5
    found = json.loads(first.out[-1])["methods"]
    assert tuple(found) == METHODS
    samples = set()
    for method in METHODS:
        one = found[method]
        airless = method in compare.AIRLESS
        assert (one["virtual_s"] is None) == (one["energy_j"] is None) == airless
        assert 0 <= one["accuracy"] <= 1 and one["accuracy_spread"] is None and one["rounds"] == 1
        assert (one["device_memory_bytes"] is None) == (method == "central")
        samples |= {record.samples for record in history.read(Path(one["runs"][0]) / "history.jsonl")[1]}
    assert len(samples) == 1
    assert found["local"]["bytes_up"] == found["central"]["bytes_up"] == 0 < found["fedlora"]["bytes_up"]
    before = files(folder)
    again = cli("compare", *words, "--methods", ",".join(METHODS))
    assert json.loads(again.out[-1]) == json.loads(first.out[-1])
    assert sum(line.endswith(": finished") for line in again.err) == 5
    after = files(folder)
    assert {k: v for k, v in after.items() if k != "comparison.png"} == {
        k: v for k, v in before.items() if k != "comparison.png"
    }
    (Path(found["sl"]["runs"][0]) / "result.json").unlink()
    stopped = cli("compare", *words, "--methods", "sl")
    assert [line for line in stopped.err if line.endswith(": resumed")] != []
    other = cli("compare", *words, "--methods", "sl", "--set", "learn.lr=0.001")
    assert any(line.endswith(": started") for line in other.err)


def test_means_and_spread_over_seeds_by_hand() -> None:
    results = [
        {"accuracy": share, "rounds": 2, "virtual_s": 3.0, "energy_j": 1.0, "bytes_up": up, "bytes_down": 4}
        | {"device_memory": None, "run_dir": "x"}
        for share, up in ((0.5, 10), (0.7, 20))
    ]
    one = compare.Compared(method="sflam", results=tuple(results), records=((), ()))
    said = one.to_dict()
    assert said["accuracy"] == pytest.approx(0.6) and said["accuracy_spread"] == pytest.approx(0.02**0.5)
    assert (said["bytes_up"], said["bytes_down"], said["virtual_s"]) == (15, 4, 3.0)
    assert said["device_memory_bytes"] is None and said["runs"] == ["x", "x"]
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(
            comparison_table({"sflam": said, "central": said | {"virtual_s": None, "energy_j": None}})
        )
    text = capture.get()
    assert "60.0 % ± 14.1" in text and "after 2 rounds" in text and "…" not in text


def test_a_method_changes_only_what_it_cannot_do() -> None:
    wanted = config.load(None, ["network.simulate=true", "fleet.policy=loss", "learn.lr=0.01"])
    assert compare.variant(wanted, "sflam", 0) == wanted
    alone = compare.variant(wanted, "central", 3)
    assert (alone.seed, alone.network.simulate, alone.fleet.policy) == (3, False, "uniform")
    assert alone.learn == replace(wanted.learn, method="central") and alone.data == wanted.data
    assert compare.variant(wanted, "fedavg", 0).model.trainable == "full"


def test_the_picture_shows_what_was_measured(tmp_path: Path) -> None:
    rounds = [RoundRecord(round=n, loss=1.0, accuracy=0.5 + n / 10, bytes_up=10**6) for n in range(3)]
    charged = [replace(item, charge=charge(item.round)) for item in rounds]
    draw_comparison({"sflam": [charged, charged], "central": [rounds]}, tmp_path / "four.png", title="both")
    draw_comparison({"central": [rounds]}, tmp_path / "two.png")
    heights = [
        int.from_bytes((tmp_path / name).read_bytes()[20:24], "big") for name in ("four.png", "two.png")
    ]
    assert heights[0] > heights[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--methods", "sflam,sl2"), "sl2"),
        (("--methods", "sl,sl"), "name each method once"),
        (("--seeds", "0"), "at least one is needed"),
    ],
)
def test_bad_words_are_told(cli: Cli, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    assert_refused(cli("compare", *words, "--out", tmp_path / "out"), said)
