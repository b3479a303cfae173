"""Stability is measured under common random numbers: what is not replaced does not move."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import sflam
from sflam.errors import ConfigError
from sflam.stability import measure as stability
from sflam.stability.measure import Asked, measure, trainings

FEW = Asked(layers=(1, 3), samples=12, replacements=2, draws=2, steps=4)


def job(*settings: str) -> sflam.Job:
    return sflam.load(None, ["learn.batch=8", "learn.device=cpu", *settings])


def test_a_replaced_sample_moves_and_its_fraction_counts(small: tuple[str, ...]) -> None:
    reported: list[tuple[int, int]] = []
    found = list(measure(job(*small), FEW, lambda done, depth: reported.append((done, depth))))
    assert [item.layers for item in found] == [1, 3]
    assert [item.fraction for item in found] == [1 / 3, 1.0]
    assert all(0 < item.measured <= item.largest and item.rho > 0 and item.error >= 0 for item in found)
    assert reported == [(1 + done, 3) for done in range(trainings(FEW, 3))]
    assert trainings(FEW, 3) == 1 + 2 * 2 * 3
    again = list(measure(job(*small), replace(FEW, layers=(3,))))
    assert again == found[1:]  # the same seed, the same numbers, whatever else is measured


def test_replacing_a_sample_by_itself_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With common random numbers the difference is exactly zero: seed, order, dropout are all the same."""
    train = stability._train
    first: dict[str, np.ndarray] = {}

    def honest(assembly, examples, start, samples, layers, steps, **options):  # type: ignore[no-untyped-def]
        if not options.get("head"):
            samples = first.setdefault(f"{layers} {options['draw']}", samples)
        return train(assembly, examples, start, samples, layers, steps, **options)

    monkeypatch.setattr(stability, "_train", honest)
    found = list(
        measure(job("model.dropout=0.2"), Asked(layers=(2,), samples=16, replacements=2, draws=1, steps=3))
    )
    assert found[0].measured == found[0].largest == 0.0


def test_what_cannot_be_measured() -> None:
    with pytest.raises(ConfigError, match="--samples is 1; replacing one of them needs at least 2"):
        Asked(samples=1, replacements=1)
    with pytest.raises(ConfigError, match=r"--replacements is 9; give 1 to --samples = 4"):
        Asked(samples=4, replacements=9)
    with pytest.raises(ConfigError, match=r"--layers holds 7; model 'nano-vit' has 6 layers"):
        list(measure(job(), Asked(layers=(7,), samples=4, replacements=1)))
    with pytest.raises(ConfigError, match=r"--samples 900 and --replacements 8 need 1816 training samples"):
        list(measure(job(), Asked(samples=900)))
