"""Bodies and adapters as Flower's records, and back; nothing is unpickled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from flwr.app import Array, ArrayRecord

from sflam.errors import ServeError, WireError
from sflam.model.adapters import State

ORDER, REPORT, ADAPTERS = "sflam.order", "sflam.report", "sflam.adapters"
"""The records of a message: what it orders, what goes beside a reply, and the adapters of either."""
BODY = "adapters"
"""The one array of a record that carries a body."""
HEAD = 256
"""Bytes that the head of an array may take."""


def body_record(body: bytes) -> ArrayRecord:
    """Return a body of the link's protocol as one array of bytes, uint8 [n]."""
    return ArrayRecord({BODY: Array(np.frombuffer(body, np.uint8))})


def body_of(record: Mapping[str, Array], most: int) -> bytes:
    """Return the body that a record carries, of at most ``most`` bytes; raises WireError where it carries none."""
    array = record.get(BODY)
    if array is None or len(record) != 1 or array.dtype != "uint8" or len(array.data) > most + HEAD:
        raise WireError(
            "a message carries no adapters as agreed; use the same version of sflam on both sides"
        )
    try:
        values = array.numpy()  # NumPy's own format, which refuses objects
    except (ValueError, TypeError, EOFError, OSError) as error:
        raise WireError(f"the adapters of a message cannot be read ({str(error)[:100]})") from error
    if values.dtype != np.uint8 or values.ndim != 1:
        raise WireError(f"adapters of {values.dtype} {values.shape} came; bytes [n] were agreed")
    return bytes(values)


def adapter_record(state: State, names: Sequence[str]) -> ArrayRecord:
    """Return named adapters in float64, in which an average loses nothing that adapters keep."""
    return ArrayRecord({name: Array(state[name].detach().cpu().double().numpy()) for name in names})


def adapters_from(record: Mapping[str, Array], like: State, names: Sequence[str]) -> State:
    """Return the named adapters that a strategy decided, in the types of ``like``.

    Raises:
        ServeError: they are others, of other shapes, or not finite.
    """
    if set(record) != set(names):
        raise ServeError(f"the strategy returned {len(record)} arrays; {len(names)} adapters were averaged")
    found = {}
    for name in names:
        values = torch.from_numpy(np.array(record[name].numpy()))
        if values.shape != like[name].shape or not values.isfinite().all():
            raise ServeError(
                f"the strategy returned {name} as {tuple(values.shape)}, or not finite; {tuple(like[name].shape)} "
                "was averaged"
            )
        found[name] = values.to(like[name])
    return found
