"""The picture is written whole, for long, short, unevaluated and diverged runs alike."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from sflam.errors import RunError
from sflam.records.history import RoundRecord

curves = pytest.importorskip("sflam.report.charts.curves")

PNG = b"\x89PNG\r\n\x1a\n"


def records(count: int, every: int = 1) -> list[RoundRecord]:
    return [
        RoundRecord(
            round=number,
            loss=2.3 * math.exp(-number / 5),
            test_loss=2.4 * math.exp(-number / 5) if number % every == 0 else None,
            accuracy=1 - 0.9 * math.exp(-number / 5) if number % every == 0 else None,
            bytes_up=2_000_000,
            bytes_down=2_000_000,
        )
        for number in range(count)
    ]


@pytest.mark.parametrize(
    "drawn",
    [
        records(20),
        records(100, every=7),
        records(1),
        [RoundRecord(round=0, loss=2.0)],
        [RoundRecord(round=0, loss=math.nan, accuracy=math.nan, test_loss=math.inf)],
        [RoundRecord(round=0, loss=0.0), RoundRecord(round=1, loss=math.inf)],
    ],
    ids=["usual", "long", "single", "unevaluated", "diverged", "late"],
)
def test_a_picture_is_written(tmp_path: Path, drawn: list[RoundRecord]) -> None:
    path = tmp_path / "curves.png"
    curves.draw(drawn, path, title="nano-vit on digits")
    picture = path.read_bytes()
    assert picture.startswith(PNG) and len(picture) > 10_000
    assert list(tmp_path.iterdir()) == [path]
    assert "matplotlib.pyplot" not in sys.modules


def test_axes_say_what_they_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    save = curves.Figure.savefig
    monkeypatch.setattr(
        curves.Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))
    )
    curves.draw(records(20), tmp_path / "curves.png")
    labels = [(axes.get_xlabel(), axes.get_ylabel()) for axes in figures[0].axes]
    assert labels == [
        ("round", "test accuracy (%)"),
        ("round", "mean loss per sample (nats)"),
        ("sent so far, both ways (MB)", "test accuracy (%)"),
    ]
    sent, accuracy = figures[0].axes[2].lines[0].get_data()
    assert list(sent[:3]) == [4.0, 8.0, 12.0] and accuracy[-1] == pytest.approx(98, abs=0.5)


def test_nothing_to_draw_and_nowhere_to_write_are_clear(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no rounds to draw"):
        curves.draw([], tmp_path / "curves.png")
    with pytest.raises(RunError, match="cannot be written"):
        curves.draw(records(2), tmp_path / "absent" / "curves.png")


def test_a_simulated_run_has_panels_for_its_clock_and_its_energy(tmp_path: Path) -> None:
    from dataclasses import replace

    from tests.report.charges import charge

    plain = records(5)
    charged = [replace(item, charge=charge(item.round)) for item in plain]
    curves.draw(plain, tmp_path / "plain.png")
    curves.draw(charged, tmp_path / "charged.png", devices=[0.5, 1.0])
    sizes = [(tmp_path / f"{name}.png").read_bytes()[16:24] for name in ("plain", "charged")]
    heights = [int.from_bytes(size[4:], "big") for size in sizes]
    assert heights[1] == 2 * heights[0]
