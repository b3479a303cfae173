"""Bounds beside a measurement: fitted at one fraction, judged at the others, and reported by the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sflam.stability.bounds import judge
from sflam.stability.measure import Stability
from tests.conftest import Cli, assert_refused, sets


def stability(layers: int, measured: float, rho: float = 1.0, curvature: float = 0.5) -> Stability:
    return Stability(
        layers=layers,
        fraction=layers / 4,
        measured=measured,
        error=0.0,
        largest=measured,
        rho=rho,
        curvature=curvature,
        loss=0.1,
        samples=100,
    )


def test_bounds_by_hand() -> None:
    """(5.2) at c = 1/2: 2 / (100 (0.5 + 1 - p)); (5.3): 2 rho_M^2 / (100 (0.5 + gamma)), rho measured at each p."""
    found = judge([stability(4, 0.02), stability(2, 0.01, rho=0.8), stability(1, 0.004, rho=0.6)], decay=0.25)
    assert [each.layers for each in found.measured] == [1, 2, 4]
    np.testing.assert_allclose(found.soft, [2 / 125, 2 / 100, 2 / 50])
    np.testing.assert_allclose(found.hard, [2 * 0.36 / 75, 2 * 0.64 / 75, 2 / 75])
    assert found.fitted_at == 1 and found.penalty == pytest.approx((2 / (100 * 0.01) - 0.5) / (2 * 0.5))
    assert found.calibrated is not None and found.calibrated[1] == pytest.approx(0.01)
    reported = found.comparisons()
    assert reported["soft"].holds and reported["soft"].rank == pytest.approx(1)
    np.testing.assert_allclose(reported["calibrated"].ratio, [found.calibrated[0] / 0.004, (2 / 50) / 0.02])


def test_a_negative_curvature_bounds_nothing() -> None:
    found = judge([stability(2, 0.01, curvature=-0.2), stability(4, 0.02, curvature=-0.1)])
    assert np.isinf(found.hard).all() and np.isinf(found.soft[1])
    result = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert result["fractions"][1]["soft"] is None and result["bounds"]["hard"]["ratio_least"] is None


def test_one_fraction_fits_nothing() -> None:
    found = judge([stability(4, 0.02)])
    assert found.penalty is None and "calibrated" not in found.comparisons()


@pytest.mark.usefixtures("rendered")
def test_the_command(cli: Cli, small: tuple[str, ...], tmp_path: Path) -> None:
    few = ["--samples", 8, "--replacements", 1, "--draws", 2, "--rounds", 1, "--layers", "1,2"]
    output = cli("stability", *sets(*small), *few, "--out", tmp_path / "stability", "--json")
    assert output.code == 0, output.err
    found = json.loads(output.out[-1])
    assert found == json.loads((tmp_path / "stability" / "stability.json").read_text(encoding="utf-8"))
    assert [row["layers"] for row in found["fractions"]] == [1, 2]
    assert (tmp_path / "stability" / "stability.png").stat().st_size > 1000
    assert "training 8/8" in output.err and any("rank correlation" in line for line in output.err)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--samples", 1, "--replacements", 1], "--samples is 1; replacing one of them needs at least 2"),
        (["--layers", "1,x"], "--layers is '1,x'; separate numbers by commas"),
        (["--layers", "9", "--samples", 4, "--replacements", 1], "--layers holds 9; model .* has 3 layers"),
        (["--rounds", -1], "--rounds is -1; it must be at least 1"),
        (["--samples", 4000], "--samples 4000 and --replacements 8 need 4008 training samples"),
    ],
)
def test_what_the_command_refuses(
    cli: Cli, small: tuple[str, ...], options: list[object], sentence: str
) -> None:
    assert_refused(cli("stability", *sets(*small), *options), sentence)
