"""Stability bounds: their algebra, and that they hold on ridge-penalised logistic regression that is trained anew."""

from __future__ import annotations

import numpy as np
import pytest

from sflam.stability import theory as stability


def test_bounds_by_hand() -> None:
    assert stability.soft_bound(0.25, 100, lipschitz=3, eigenvalue=0.5, penalty=1) == pytest.approx(18 / 200)
    assert stability.hard_bound(0.25, 100, lipschitz=3, eigenvalue=0.5, decay=0.4) == pytest.approx(4.5 / 90)
    printed = stability.soft_bound([0.0, 0.5, 1.0], 10)
    assert printed[:2] == pytest.approx([0.2, 0.4]) and np.isinf(printed[2])
    assert np.isinf(stability.hard_bound(0.5, 10))


def test_the_hard_bound_is_linear_and_finite_and_the_soft_one_grows() -> None:
    p = np.linspace(0.1, 1, 10)
    hard = stability.hard_bound(p, 50, eigenvalue=0.1, decay=0.1)
    np.testing.assert_allclose(hard, p * hard[-1], rtol=1e-12)
    assert (np.diff(stability.soft_bound(p, 50, eigenvalue=0.1)) > 0).all()


def test_calibration_on_one_p_meets_it() -> None:
    fitted = stability.calibrated_penalty(0.004, 0.3, 1000, lipschitz=2, eigenvalue=0.2)
    assert stability.soft_bound(0.3, 1000, lipschitz=2, eigenvalue=0.2, penalty=fitted) == pytest.approx(
        0.004
    )
    assert stability.calibrated_penalty(1e9, 0.3, 1000, eigenvalue=0.1) == 0


def test_rank_correlation() -> None:
    assert stability.rank_correlation([1, 2, 3, 4], [10, 20, 30, 1e9]) == pytest.approx(1)
    assert stability.rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert stability.rank_correlation([1, 2, 2, 3], [1, 2, 2, 3]) == pytest.approx(1)
    assert np.isnan(stability.rank_correlation([1, 1], [1, 2]))


def test_measured_means_have_their_error() -> None:
    mean, error = stability.average_stability([[1.0, 2.0], [1.0, 2.0]], [[1.5, 2.5], [2.0, 1.0]])
    assert mean == pytest.approx(0.75) and error == pytest.approx(0.25)
    assert np.isnan(stability.average_stability([[1.0]], [[2.0]])[1])


def trained(x: np.ndarray, y: np.ndarray, weight: float, mask: np.ndarray) -> np.ndarray:
    """Return the minimiser of mean logistic loss + weight |theta|^2 over the coordinates in mask (Newton)."""
    theta, used = np.zeros(x.shape[1]), x[:, mask]
    for _ in range(30):
        chance = 1 / (1 + np.exp(-used @ theta[mask]))
        gradient = used.T @ (chance - y) / len(y) + 2 * weight * theta[mask]
        hessian = (used * (chance * (1 - chance))[:, None]).T @ used / len(y)
        theta[mask] -= np.linalg.solve(hessian + 2 * weight * np.eye(mask.sum()), gradient)
    return theta


def loss(theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, x @ theta) - y * (x @ theta)


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_bounds_hold_and_rank_on_a_trained_head(kind: str) -> None:
    """Logistic head on frozen features, samples replaced one at a time: (5.2) and (5.3) above, in the right order."""
    draw = np.random.default_rng(0)
    n, d, replaced = 120, 24, 40
    truth = draw.standard_normal(d) / np.sqrt(d)
    x = draw.standard_normal((n + replaced, d))
    x /= np.linalg.norm(x, axis=1, keepdims=True) / 2
    y = (draw.random(n + replaced) < 1 / (1 + np.exp(-3 * x @ truth))).astype(float)
    fractions = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    rho, c, gamma = 2.0, 0.05, 0.02  # a logistic loss is |x|-Lipschitz
    measured = []
    for p in fractions:
        mask = np.arange(d) < round(p * d) if kind == "hard" else np.ones(d, bool)
        weight = gamma / 2 if kind == "hard" else c * (1 - p)
        whole = trained(x[:n], y[:n], weight, mask)
        gaps = []
        for i in range(replaced):
            xs, ys = x[:n].copy(), y[:n].copy()
            xs[i], ys[i] = x[n + i], y[n + i]
            other = trained(xs, ys, weight, mask)
            gaps.append(
                (loss(whole, x[i : i + 1], y[i : i + 1])[0], loss(other, x[i : i + 1], y[i : i + 1])[0])
            )
        before, after = np.array(gaps).T
        measured.append(stability.average_stability(before[None], after[None])[0])
    if kind == "hard":
        rho_masked = [np.linalg.norm(x[:, : round(p * d)], axis=1).max() / np.sqrt(p) for p in fractions]
        bound = stability.hard_bound(fractions, n, lipschitz=rho_masked, decay=gamma)
    else:
        bound = stability.soft_bound(fractions, n, lipschitz=rho, penalty=c)
    found = stability.compare(fractions, measured, bound)
    assert found.holds and found.increasing and (found.ratio > 1).all()
    assert found.rank == pytest.approx(1.0)
