"""Which blocks carry adapters (``model.tuned``): the first n of them, the last n, or all. Torch-free."""

from __future__ import annotations

from sflam.errors import ModelError


def tuned_blocks(tuned: int, blocks: int, model: str = "") -> range:
    """Return the blocks that carry adapters.

    Args:
        tuned: n for the first n blocks, -n for the last n, 0 for all.
        blocks: of the model.
        model: what it is called, for an error.

    Raises:
        ModelError: more blocks than the model has.
    """
    if abs(tuned) > blocks:
        raise ModelError(
            f"{abs(tuned)} tuned blocks are more than model {model!r} has, {blocks}: model.tuned must be between "
            f"-{blocks} (the last {blocks}) and {blocks} (the first {blocks})"
        )
    if tuned < 0:
        return range(blocks + tuned, blocks)
    return range(tuned or blocks)


def as_number(tuned: range, blocks: int) -> int:
    """Return the number that stands for a range of :func:`tuned_blocks`."""
    if len(tuned) == blocks:
        return 0
    return -len(tuned) if tuned.start else len(tuned)


def tuned_among(tuned: range, first: int, last: int) -> int:
    """Return how many of the blocks ``first`` to ``last`` - 1 are tuned."""
    return len(range(max(first, tuned.start), min(last, tuned.stop)))
