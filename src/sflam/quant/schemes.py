"""The quantizers by name, NumPy only: what the lean device runs."""

from __future__ import annotations

from sflam.errors import QuantizerError, unknown
from sflam.quant.identity import Identity
from sflam.quant.quantizer import Quantizer
from sflam.quant.rotation import Rotated
from sflam.quant.settings import SCHEMES
from sflam.quant.uniform import Uniform

QUANTIZERS: dict[str, Quantizer] = {each.name: each for each in (Uniform(), Rotated(), Identity())}

assert set(QUANTIZERS) == set(SCHEMES)


def quantizer(name: str) -> Quantizer:
    """Return the quantizer called ``name``.

    Raises:
        QuantizerError: no such scheme; the message lists the known ones.
    """
    if name not in QUANTIZERS:
        raise QuantizerError(unknown("scheme", name, QUANTIZERS))
    return QUANTIZERS[name]
