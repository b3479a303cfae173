"""Stability is that of the training that is asked for, under common random numbers: what is not replaced stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import sflam
from sflam.errors import ConfigError
from sflam.model.adapters import state_of
from sflam.stability.measure import Asked, measure, trainings
from sflam.stability.training import Retraining, as_measured
from tests.serve.network import adapters_of

FEW = Asked(layers=(1, 3), samples=12, replacements=2, draws=2)
TWELVE = ("data.partition=iid", "fleet.devices=3", "learn.batch=2")


def job(*settings: str) -> sflam.Job:
    return sflam.load(None, ["learn.batch=8", "learn.device=cpu", *settings])


@pytest.mark.parametrize(
    "more",
    [
        ("quant.bits_up=3", "model.tuned=1", "model.cut=2"),
        ("model.tuned=-1", "model.cut=1", "learn.method=sfl-v2"),
        ("fleet.cuts=[0, 1, 2]", "learn.aggregation=freeze-a", "model.dropout=0.2"),
        ("learn.method=fedlora",),
        ("learn.method=central",),
        ("model.labels=device", "quant.bits_up=4", "learn.state=keep"),
    ],
    ids=" ".join,
)
def test_on_all_samples_it_is_the_training_of_train(
    small: tuple[str, ...], tmp_path: Path, more: tuple[str, ...]
) -> None:
    """Bit for bit: split, quantized, shared out and averaged as the job is."""
    wanted = sflam.load(None, [*small, *more])
    sflam.train(wanted, tmp_path / "run")
    training = Retraining.of(as_measured(wanted))
    every = np.arange(len(training.pool))
    for _ in range(2):  # and again: nothing of a training stays
        training.run(every, training.parts(every))
        found = state_of(training.assembly.model)
        expected = adapters_of(tmp_path / "run")
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_replaced_sample_moves_and_its_fraction_counts(small: tuple[str, ...]) -> None:
    reported: list[tuple[int, int]] = []
    found = list(measure(job(*small, *TWELVE), FEW, lambda done, depth: reported.append((done, depth))))
    assert [item.layers for item in found] == [1, 3]
    assert [item.fraction for item in found] == [1 / 3, 1.0]
    assert all(0 < item.measured <= item.largest and item.rho > 0 and item.error >= 0 for item in found)
    assert reported == [(1 + done, 3) for done in range(trainings(FEW, 3))]
    assert trainings(FEW, 3) == 2 * 2 * 3
    again = list(measure(job(*small, *TWELVE), replace(FEW, layers=(3,))))
    assert again == found[1:]  # the same seed, the same numbers, whatever else is measured
    as_is = list(measure(job(*small, *TWELVE), replace(FEW, layers=(), as_is=True)))
    assert as_is == found[1:]


def test_replacing_a_sample_by_itself_changes_nothing(small: tuple[str, ...]) -> None:
    """With common random numbers it is exactly zero: seed, shares, order, dropout and noise are all the same."""
    training = Retraining.of(job(*small, *TWELVE, "model.dropout=0.2", "quant.bits_up=2"))
    chosen = np.arange(12)
    first = training.run(chosen, training.parts(chosen))
    again = training.run(chosen, training.parts(chosen))
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = chosen.copy()
    other[5] = 20
    changed = training.run(other, training.parts(chosen))
    assert not all(torch.equal(first[name], changed[name]) for name in first)


def test_only_what_is_trained_is_steep(small: tuple[str, ...]) -> None:
    training = Retraining.of(
        job(*small, "model.cut=2", "learn.device_half=frozen", "learn.aggregation=freeze-a")
    )
    names = {id(p): n for n, p in training.assembly.model.named_parameters()}
    found = [names[id(p)] for p in training.trained()]
    assert found and all(".layers.2." in name or "classifier" in name for name in found)
    assert not any("lora_A" in name for name in found)


def test_what_cannot_be_measured() -> None:
    with pytest.raises(ConfigError, match="--samples is 1; replacing one of them needs at least 2"):
        Asked(samples=1, replacements=1)
    with pytest.raises(ConfigError, match=r"--replacements is 9; give 1 to --samples = 4"):
        Asked(samples=4, replacements=9)
    with pytest.raises(ConfigError, match=r"--layers holds 7; model 'nano-vit' has 6 layers"):
        list(measure(job(), Asked(layers=(7,), samples=4, replacements=1)))
    with pytest.raises(ConfigError, match=r"--samples 4000 and --replacements 8 need 4008 training samples"):
        list(measure(job(), Asked(samples=4000)))
    for setting, why in (
        ("data.flipped=0.5", "data.flipped changes the samples"),
        ("learn.method=local", "that of one model"),
        ("learn.aggregation=residual", "changes the frozen weights"),
    ):
        with pytest.raises(ConfigError, match=why):
            list(measure(job(setting), Asked()))
