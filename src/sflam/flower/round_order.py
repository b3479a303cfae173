"""What a message of a round says beside its adapters: where the trunk is, and by what a device is let in there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sflam.errors import WireError

LONGEST = 1 << 16
"""Characters of a text there may be."""


@dataclass(frozen=True)
class RoundOrder:
    """A device's invitation to one round.

    Attributes:
        address: of the trunk, as a device's link takes it.
        certificate: the trunk's, PEM, which alone is trusted; "" for plain HTTP on this machine.
        token: of the device's place.
        round: the number it is for, from 0.
    """

    address: str
    certificate: str
    token: str
    round: int

    def plain(self) -> dict[str, str | int]:
        """Return it as the values of a Flower ConfigRecord."""
        return asdict(self)


def order_from(values: Mapping[str, Any]) -> RoundOrder:
    """Return the order that a ConfigRecord holds; raises WireError where it is none."""
    kinds = {"address": str, "certificate": str, "token": str, "round": int}
    wrong = [
        name
        for name, kind in kinds.items()
        if type(values.get(name)) is not kind or (kind is str and len(values[name]) > LONGEST)
    ]
    if wrong or values["round"] < 0:
        raise WireError(
            f"the message of the ServerApp lacks {', '.join(wrong) or 'a round'}; use the same version of sflam on "
            "both sides"
        )
    return RoundOrder(**{name: values[name] for name in kinds})
