"""Whether the library that keys need is there: an extra of its own, for a lean device does without."""

from __future__ import annotations

from importlib.util import find_spec

from sflam.errors import SecureSumError


def expect_installed() -> None:
    """Raise SecureSumError where the cryptography library is not there."""
    if find_spec("cryptography") is None:
        raise SecureSumError(
            "privacy.secure_aggregation = true needs the cryptography library; pip install 'sflam[device-secure]'"
        )
