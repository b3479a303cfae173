"""Which exchange a fleet has: a plain one, one of changes, or one whose server keeps what came."""

from __future__ import annotations

from sflam.codec.guard import Guard
from sflam.learn.activation_cache import CachedExchange
from sflam.learn.delta import DeltaExchange
from sflam.learn.exchange import Exchange
from sflam.model.families import CAUSAL


def exchange_of(
    scheme: str, seed: int, task: str, *, delta: bool, cache: str, guard: Guard | None
) -> Exchange:
    """Return how what crosses the cut becomes bytes.

    Args:
        scheme: name of the quantizer.
        seed: of the run.
        task: of the model, a key of ``Family.tasks``.
        delta: ``quant.delta``.
        cache: ``learn.cache``.
        guard: what devices do to what they send; None for nothing.
    """
    assert not delta or (cache == "off" and not (guard and guard.clips)), "run.compatibility refuses that"
    kind = DeltaExchange if delta else CachedExchange if cache == "server" else Exchange
    return kind(scheme, seed, per_token=task == CAUSAL, guard=guard)
