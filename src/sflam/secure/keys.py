"""Keys that two devices agree on, and what is made of them: masks, and boxes that only the other opens.

X25519 and HKDF with SHA-256 give two devices one key of 32 bytes, bound to the sum it is for; ChaCha20-Poly1305 seals
with it, and AES-256 in counter mode stretches it to a mask. This file needs the cryptography library.
"""

from __future__ import annotations

import hashlib

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sflam.errors import WireError
from sflam.secure.messages import KEY_BYTES
from sflam.secure.ring import Vector, top

_ONCE = bytes(12)
"""A key seals one box in each direction, and each direction is a purpose of its own, so its nonce may stay."""


class KeyPair:
    """A pair of X25519 keys.

    Args:
        secret: 32 bytes of the half that is kept; a fresh one by default.

    Attributes:
        public: 32 bytes, for everyone.
        secret: 32 bytes, for its owner.
    """

    def __init__(self, secret: bytes = b"") -> None:
        self._own = X25519PrivateKey.from_private_bytes(secret) if secret else X25519PrivateKey.generate()
        self.secret = self._own.private_bytes_raw()
        self.public = self._own.public_key().public_bytes_raw()

    def agree(self, other: bytes, purpose: bytes) -> bytes:
        """Return the key of 32 bytes that this pair and the ``other`` public key have for a ``purpose``.

        Raises:
            WireError: no public key.
        """
        try:
            common = self._own.exchange(X25519PublicKey.from_public_bytes(other))
        except ValueError as error:
            raise WireError("32 bytes came that are no public key; restart the round") from error
        return HKDF(SHA256(), KEY_BYTES, None, purpose).derive(common)


def expect_public(key: bytes) -> None:
    """Raise WireError where 32 bytes are no public key by which anything could be agreed."""
    KeyPair().agree(key, b"sflam public key")


def seal(key: bytes, text: bytes) -> bytes:
    """Return ``text`` as only ``key`` opens it, 16 bytes longer; a key seals once."""
    return ChaCha20Poly1305(key).encrypt(_ONCE, text, None)


def opened(key: bytes, box: bytes) -> bytes:
    """Return the text of a box.

    Raises:
        WireError: it was sealed with another key, or changed on the way.
    """
    try:
        return ChaCha20Poly1305(key).decrypt(_ONCE, box, None)
    except InvalidTag as error:
        raise WireError("a sealed share does not open with the key agreed; restart the round") from error


def stretched(key: bytes, count: int, width: int) -> Vector:
    """Return ``count`` numbers of ``width`` bytes that look random without the ``key``, [count]."""
    lane = 4 if width <= 4 else 8
    raw = Cipher(AES(key), CTR(bytes(16))).encryptor().update(bytes(count * lane))
    found: Vector = np.frombuffer(raw, f"<u{lane}").astype(np.uint64) & top(width)
    return found


def fingerprint(secret: bytes) -> bytes:
    """Return 32 bytes by which a secret of 32 random bytes is recognised, and not guessed."""
    return hashlib.sha256(b"sflam secure sum" + secret).digest()
