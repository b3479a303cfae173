"""The quantizers by name, NumPy only: what the lean device runs."""

from __future__ import annotations

from sflam.codec.identity import Identity
from sflam.codec.quantizer import Quantizer
from sflam.codec.rotation import Rotated
from sflam.codec.settings import SCHEMES
from sflam.codec.topk import TopK
from sflam.codec.uniform import Uniform
from sflam.errors import QuantizerError, unknown

QUANTIZERS: dict[str, Quantizer] = {each.name: each for each in (Uniform(), Rotated(), TopK(), Identity())}

assert set(QUANTIZERS) == set(SCHEMES)


def quantizer(name: str) -> Quantizer:
    """Return the quantizer called ``name``.

    Raises:
        QuantizerError: no such scheme; the message lists the known ones.
    """
    if name not in QUANTIZERS:
        raise QuantizerError(unknown("scheme", name, QUANTIZERS))
    return QUANTIZERS[name]
