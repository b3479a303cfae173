"""Messages of every shape, and the comparison that frozen dataclasses of arrays lack."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from hypothesis import strategies as st

from sflam.codec.messages import AdapterFrame, ChangeFrame, GradientFrame, Message, StepFrame
from sflam.codec.quantizer import Packed
from sflam.codec.quantizers import quantizer
from sflam.sizes import COUNT_LIMIT

COUNTS = st.integers(0, COUNT_LIMIT - 1)


def packed(tokens: int, dim: int, bits: int = 4, scheme: str = "uniform", dtype: type = np.float32) -> Packed:
    x = np.random.default_rng(tokens * dim).standard_normal((tokens, dim)).astype(dtype)
    return quantizer(scheme).encode(x, bits, 0)


def step(tokens: int = 6, dim: int = 5, rows: int = 2, **changes: object) -> StepFrame:
    values = {"activations": packed(tokens, dim), "rows": rows, "lengths": None, "labels": None} | changes
    return StepFrame(1, 2, 3, **values)  # type: ignore[arg-type]


def gradient(tokens: int = 6, dim: int = 5) -> GradientFrame:
    return GradientFrame(1, 2, 3, 0.1, packed(tokens, dim))


def adapter(size: int = 7) -> AdapterFrame:
    return AdapterFrame(1, 2, 30, np.linspace(-1, 1, size, dtype=np.float32))


@st.composite
def tokens(draw: st.DrawFn, count: int) -> Packed:
    dim = draw(st.integers(1, 9))
    if draw(st.booleans()):
        scheme = draw(st.sampled_from(["uniform", "rotated", "topk"]))
        return packed(count, dim, draw(st.integers(1, 16)), scheme)
    return packed(count, dim, 8, "identity", draw(st.sampled_from([np.float32, np.float64])))


@st.composite
def messages(draw: st.DrawFn) -> Message:
    kind = draw(st.sampled_from(["step", "gradient", "adapter", "change"]))
    numbers = draw(st.tuples(COUNTS, COUNTS, COUNTS))
    if kind == "adapter":
        dtype = draw(st.sampled_from([np.float32, np.float64]))
        return AdapterFrame(*numbers, np.arange(draw(st.integers(0, 40)), dtype=dtype))
    if kind == "change":
        return ChangeFrame(*numbers, draw(tokens(draw(st.integers(0, 8)))))
    if kind == "gradient":
        loss = draw(st.floats())
        return GradientFrame(*numbers, loss, draw(st.none() | tokens(draw(st.integers(0, 8)))))
    lengths = np.array(draw(st.lists(st.integers(0, 6), min_size=1, max_size=4)), np.int32)
    if draw(st.booleans()):  # every row full
        lengths[:] = lengths[0]
    full = draw(st.booleans()) and len(set(lengths.tolist())) == 1
    samples, here = None, np.ones(len(lengths), bool)
    if draw(st.booleans()):
        samples = np.array(draw(st.permutations(range(9)))[: len(lengths)], np.int32)
        here[:] = draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths)))
    activations = draw(tokens(int(lengths[here].sum())))
    labels = draw(st.none() | st.lists(st.integers(-(2**31), 2**31 - 1), max_size=5))
    return StepFrame(
        *numbers,
        activations,
        len(lengths),
        None if full else lengths,
        None if labels is None else np.array(labels, np.int32),
        samples,
    )


def flat(value: object) -> object:
    """Return ``value`` as plain comparable data: arrays as type, shape and bytes; floats as their text."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, Message | Packed):
        return type(value).__name__, [flat(getattr(value, field.name)) for field in fields(value)]
    return value
