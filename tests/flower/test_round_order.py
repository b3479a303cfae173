"""What a message orders of a device is checked before it is believed."""

from __future__ import annotations

import pytest

from sflam.errors import WireError
from sflam.flower.round_order import LONGEST, RoundOrder, order_from

ORDER = RoundOrder("127.0.0.1:8443", "-----BEGIN CERTIFICATE-----", "sflam_token", 3)


def test_an_order_comes_back():
    assert order_from(ORDER.plain()) == ORDER


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("address", None), ("address", 5), ("token", b"sflam"), ("certificate", "x" * (LONGEST + 1)),
        ("round", "3"), ("round", True), ("round", -1), ("round", 1.0),
    ],
)  # fmt: skip
def test_anything_else_is_refused(name, value):
    with pytest.raises(WireError, match=f"lacks {name if value != -1 else 'a round'}; use the same version"):
        order_from(ORDER.plain() | {name: value})
    with pytest.raises(WireError, match="address, certificate, token, round"):
        order_from({})
