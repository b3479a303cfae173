"""What a device counts in the average of a round, as both it and the server know: whole numbers, of rows or samples."""

from __future__ import annotations

from sflam.data.batches import rows_of_round
from sflam.data.settings import POISSON
from sflam.learn.settings import LearnSettings


def counts_of(learn: LearnSettings, sampling: str, trained: int, held: int) -> int:
    """Return what a device counts, chances apart: its samples where these are its weight, else the rows of its steps.

    Args:
        learn: how a round is run.
        sampling: ``data.sampling``.
        trained: rows of the round; drawn by coins, those of as many steps in passes count instead.
        held: n_k.
    """
    if learn.counts_held(sampling):
        return held
    if sampling == POISSON:
        return rows_of_round(held, learn.batch, learn.local_steps, learn.local_epochs)
    return trained
