"""The mini-batches of a device's round: its own, or of as many rows as the server drew for each step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sflam.data.batches import Indices, round_batches
from sflam.data.poisson import batches_of_sizes, most_drawn, step_count
from sflam.data.sampling import batches_of_shares
from sflam.data.settings import POISSON
from sflam.errors import ServeError
from sflam.learn.settings import LearnSettings
from sflam.link.contract import expect_rows, shares_of
from sflam.link.place import Place
from sflam.link.standing import Standing


def batches_for(
    place: Place, learn: LearnSettings, now: Standing, lengths: NDArray[np.int32] | None
) -> list[Indices]:
    """Return the samples of every step of a round; where the server draws the rows, none in some steps, perhaps.

    Args:
        place: the device's.
        learn: how a round is run.
        now: where the round stands.
        lengths: [N] tokens of every sample, where mini-batches are of similar length.

    Raises:
        ServeError: the server drew rows that were not agreed.
    """
    steps, epochs, round = learn.local_steps, learn.local_epochs, now.round
    where = {"seed": place.seed, "round": round, "device": place.number}
    if place.sampling == "local":
        return round_batches(place.own, learn.batch, **where, steps=steps, epochs=epochs, lengths=lengths)
    if place.sampling == POISSON:
        sizes = np.array(_sizes_of(now.shares, len(place.own), learn), np.int64)
        return batches_of_sizes(place.own, sizes, **where, secret=place.secret, attempt=now.attempt)
    shares = np.array(shares_of(now.shares, len(place.own), steps, epochs), np.int64)
    return batches_of_shares(place.own, shares, **where)


def _sizes_of(found: Any, samples: int, learn: LearnSettings) -> list[int]:
    """Return the rows of each step, as the server drew them for coins; raises ServeError where they cannot be that."""
    sizes = expect_rows(found)
    steps = step_count(samples, learn.batch, learn.local_steps, learn.local_epochs)
    most = min(samples, most_drawn(learn.batch))
    if len(sizes) != steps or max(sizes, default=0) > most:
        raise ServeError(
            f"the server drew {len(sizes)} steps of up to {max(sizes, default=0)} rows; {steps} steps of up to {most} "
            f"of {samples} samples were agreed"
        )
    return sizes
