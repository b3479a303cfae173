"""Flower's records: bodies come back, and what a node could send instead is refused without being unpickled."""

from __future__ import annotations

import io

import numpy as np
import pytest

pytest.importorskip(
    "flwr", reason="needs an environment made with constraints-flower.txt and the extra flower"
)

import torch
from flwr.app import Array, ArrayRecord

from sflam.errors import ServeError, WireError
from sflam.flower.records import BODY, adapter_record, adapters_from, body_of, body_record


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("it was unpickled",))


def pickled():
    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap()], dtype=object), allow_pickle=True)
    return Array("uint8", (1,), "numpy.ndarray", buffer.getvalue())


@pytest.mark.parametrize("body", [b"", b"x", bytes(range(256)) * 100])
def test_a_body_comes_back(body):
    assert body_of(body_record(body), len(body)) == body


@pytest.mark.parametrize(
    "record",
    [
        ArrayRecord(),
        ArrayRecord({"other": Array(np.zeros(4, np.uint8))}),
        ArrayRecord({BODY: Array(np.zeros(4, np.uint8)), "more": Array(np.zeros(4, np.uint8))}),
        ArrayRecord({BODY: Array(np.zeros(4, np.float32))}),
        ArrayRecord({BODY: Array(np.zeros(1000, np.uint8))}),
        ArrayRecord({BODY: Array(np.zeros((2, 2), np.uint8))}),
        ArrayRecord({BODY: Array("uint8", (4,), "torch.Tensor", b"\x80\x04")}),
        ArrayRecord({BODY: Array("uint8", (4,), "numpy.ndarray", b"no array")}),
    ],
)
def test_anything_else_is_refused(record):
    with pytest.raises(WireError):
        body_of(record, 4)


def test_nothing_is_unpickled():
    with pytest.raises(WireError, match="cannot be read"):
        body_of(ArrayRecord({BODY: pickled()}), 10_000)


def test_what_a_strategy_returns_is_checked():
    state = {"a": torch.arange(6, dtype=torch.float32).view(2, 3) / 7, "b": torch.ones(2)}
    record = adapter_record(state, ["a", "b"])
    found = adapters_from(record, state, ["a", "b"])
    assert all(torch.equal(found[name], state[name]) and found[name].dtype == torch.float32 for name in state)
    for wrong in (
        {"a": record["a"]},
        {"a": record["a"], "b": Array(np.ones(3))},
        {"a": record["a"], "b": Array(np.full(2, np.nan))},
    ):
        with pytest.raises(ServeError, match="the strategy returned"):
            adapters_from(ArrayRecord(wrong), state, ["a", "b"])
