"""Who is called when a device has learned from a mini-batch, in this thread, whatever the fleet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

OnStep = Callable[[int, float, int], None]
"""Called with a device, the mean loss of its mini-batch, and its rows."""
_CALLED: ContextVar[tuple[OnStep, ...]] = ContextVar("called", default=())


@contextmanager
def watching(called: OnStep) -> Iterator[None]:
    """Call this too for what is learned within."""
    before = _CALLED.set((*_CALLED.get(), called))
    try:
        yield
    finally:
        _CALLED.reset(before)


def learned(device: int, loss: float, rows: int) -> None:
    """Call all who watch."""
    for called in _CALLED.get():
        called(device, loss, rows)
