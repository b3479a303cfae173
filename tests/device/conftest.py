"""Small blocks and slices, so that small arrays are cut in many."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sflam.device import frozen, heads
from sflam.device.kernels import products, scratch


@pytest.fixture(params=[False, True], ids=["whole", "cut"])
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """Run a test twice: with the blocks of a real device, and with blocks of a few numbers."""
    if request.param:
        monkeypatch.setattr(scratch, "BLOCK_BYTES", 96)
        monkeypatch.setattr(products, "PART_BYTES", 128)
        monkeypatch.setattr(heads, "HEAD_BYTES", 200)
        monkeypatch.setattr(frozen, "SLICE_BYTES", 256)
    yield request.param
