"""What a notebook shows, and frames with and without pandas."""

from __future__ import annotations

import html.parser
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.simulate.builders import ran

import sflam
from sflam import config
from sflam.compare.comparison import compare
from sflam.planner import cell as planning
from sflam.report.notebook import frame, html_table
from sflam.run.predictions import Predictions


def balanced(text: str) -> list[str]:
    """Return the words of some HTML, whose elements must be closed in order."""
    opened: list[str] = []
    words: list[str] = []

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag != "img":
                opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

        def handle_data(self, data: str) -> None:
            words.append(data)

    Reader().feed(text)
    assert opened == []
    return words


ROWS = [{"a": 1, "b": None, "c": "x"}, {"a": 2, "b": 0.5, "c": None}]


def test_a_frame_is_pandas_s_or_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = pytest.importorskip("pandas")
    found = frame(ROWS)
    assert isinstance(found, pandas.DataFrame) and list(found.columns) == ["a", "b", "c"]
    monkeypatch.setitem(sys.modules, "pandas", None)
    plain = frame(ROWS)
    assert plain["a"].dtype == np.int64 and np.isnan(plain["b"][0]) and plain["b"][1] == 0.5
    assert plain["c"].tolist() == ["x", None] and frame([]) == {}
    assert all((found[key].to_numpy() == plain[key]).any() for key in plain)


def test_words_are_escaped() -> None:
    text = html_table(["<b>"], [["<script>"]], "a & b")
    assert "<script>" not in text and balanced(text) == ["a & b", "<b>", "<script>"]


def test_a_run_and_its_result_are_shown(small: tuple[str, ...], tmp_path: Path) -> None:
    run = ran(small, tmp_path / "run", "learn.rounds=2")
    words = balanced(run._repr_html_())
    assert words == [f"round 2 of 2, in {tmp_path / 'run'}"] and "data:image/png;base64," in run._repr_html_()
    rounds = run.to_frame()
    assert list(rounds["round"]) == [1, 2] and all(rounds["energy_j"] > 0)
    assert list(rounds["bytes_up"]) == [record.bytes_up for record in run.records]
    result = run.finish()
    shown = balanced(result._repr_html_())
    assert shown[shown.index("accuracy") + 1] == f"{result.accuracy:.5g}"


def test_a_comparison_is_shown(small: tuple[str, ...], tmp_path: Path) -> None:
    job = config.load(None, [*small, "learn.rounds=1", "network.simulate=true"])
    found = compare(job, tmp_path, ("sl", "central"))
    words = balanced(found._repr_html_())
    assert {"sl", "central", "accuracy", "energy"} <= set(words)
    rows = found.to_frame()
    first = rows[(rows["method"] == "sl") & (rows["figure"] == "accuracy")]
    assert float(first["mean"].iloc[0]) == found.methods["sl"].mean("accuracy")


def test_a_decision_is_shown() -> None:
    decision = planning.decide(sflam.load({"network": {"devices": 3}}))
    words = balanced(decision._repr_html_())
    assert "bandwidth" in words and len(decision.to_frame()["bandwidth"]) == 3
    assert f"bound {decision.plan.lower_bound:.6g}" in words[0]


def test_predictions_are_shown() -> None:
    made = Predictions("mine", ("<one>", "two"), np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 0]), 0.4)
    assert balanced(made._repr_html_())[0] == "mine: 2 samples, 50.0 % right"
    found = made.to_frame()
    assert list(found["predicted"]) == ["<one>", "two"] and list(found["label"]) == ["<one>", "<one>"]


def test_a_job_is_read_from_a_mapping() -> None:
    values = {"seed": 3, "learn": {"rounds": 7}, "quant": {"bits_up": 4}}
    job = sflam.load(values, ["learn.lr=0.5"])
    assert job == sflam.load(None, ["seed=3", "learn.rounds=7", "quant.bits_up=4", "learn.lr=0.5"])
    assert values == {"seed": 3, "learn": {"rounds": 7}, "quant": {"bits_up": 4}}
    with pytest.raises(sflam.SflamError, match="rouns"):
        sflam.load({"learn": {"rouns": 3}})
    with pytest.raises(sflam.SflamError, match="learn"):
        sflam.load({"learn": 3})
