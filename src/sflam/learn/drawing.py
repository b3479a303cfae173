"""The mini-batches of a round, as ``data.sampling`` has them: of each device's own passes, shared out, or by coins."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sflam.data.batches import round_batches
from sflam.data.poisson import batches_of_sizes, drawn_sizes
from sflam.data.sampling import batches_of_shares, round_shares
from sflam.data.settings import POISSON
from sflam.learn.examples import Examples
from sflam.learn.settings import LearnSettings


def drawn_for(
    learn: LearnSettings,
    examples: Examples,
    sampling: str,
    parts: Mapping[int, NDArray[np.int64]],
    seed: int,
    round: int,
) -> dict[int, list[NDArray[np.int64]]]:
    """Return device -> the samples of each mini-batch of its round, some perhaps empty.

    Args:
        learn: how a round is run.
        examples: the training samples.
        sampling: ``data.sampling``.
        parts: device -> the samples that it holds, of the devices of the round.
        seed: of the run.
        round: its number.
    """
    if sampling == "global":
        return drawn_together(learn, parts, seed, round)
    if sampling == POISSON:
        sizes = drawn_rows(learn, sampling, {d: len(part) for d, part in parts.items()}, seed, round)
        return {
            device: batches_of_sizes(part, sizes[device], seed=seed, round=round, device=device)
            for device, part in parts.items()
        }
    return {device: drawn(learn, examples, part, seed, round, device) for device, part in parts.items()}


def drawn_rows(
    learn: LearnSettings, sampling: str, counts: Mapping[int, int], seed: int, round: int
) -> dict[int, NDArray[np.int64]]:
    """Return device -> its rows in each step of a round, from numbers of samples alone; empty where each draws its own.

    Args:
        learn: how a round is run.
        sampling: ``data.sampling``.
        counts: device -> n_k, of the devices of the round.
        seed: of the run.
        round: its number.
    """
    if sampling == "global":
        return drawn_shares(learn, counts, seed, round)
    if sampling != POISSON:
        return {}
    steps, epochs = learn.local_steps, learn.local_epochs
    return {
        device: drawn_sizes(
            count, learn.batch, seed=seed, round=round, device=device, steps=steps, epochs=epochs
        )
        for device, count in counts.items()
    }


def drawn(
    learn: LearnSettings, examples: Examples, part: NDArray[np.int64], seed: int, round: int, device: int
) -> list[NDArray[np.int64]]:
    """Return the samples of each mini-batch of a device's round, of the samples ``part`` that it holds."""
    return round_batches(
        part,
        learn.batch,
        seed=seed,
        round=round,
        device=device,
        steps=learn.local_steps,
        epochs=learn.local_epochs,
        lengths=examples.buckets,
    )


def drawn_together(
    learn: LearnSettings, parts: Mapping[int, NDArray[np.int64]], seed: int, round: int
) -> dict[int, list[NDArray[np.int64]]]:
    """Return device -> the samples of each mini-batch of a round, its share of the fleet's steps; some may be empty."""
    shares = drawn_shares(learn, {device: len(part) for device, part in parts.items()}, seed, round)
    return {
        device: batches_of_shares(part, shares[device], seed=seed, round=round, device=device)
        for device, part in parts.items()
    }


def drawn_shares(
    learn: LearnSettings, counts: Mapping[int, int], seed: int, round: int
) -> dict[int, NDArray[np.int64]]:
    """Return device -> its rows in each step of a round, for devices with these numbers of samples."""
    return round_shares(
        counts,
        learn.batch * len(counts),
        seed=seed,
        round=round,
        steps=learn.local_steps,
        epochs=learn.local_epochs,
    )
