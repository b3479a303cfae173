"""The certificate that a device shows, and its key, by which it is the same device when that is renewed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import Request

from sflam.errors import ServeError
from sflam.files import reading

if TYPE_CHECKING:
    from sflam.serve.admission import Connection

MOST = 4096
"""Certificates that are kept parsed."""


@dataclass(frozen=True)
class PeerCertificate:
    """A certificate that was verified when the connection was made.

    Attributes:
        key: hexadecimal SHA-256 of its SubjectPublicKeyInfo (RFC 5280, 4.1), DER: that of its public key, whatever
            certificate it is in.
        issuer: the name of its authority, DER.
        serial: its number there.
    """

    key: str
    issuer: bytes
    serial: int


def shown_by(request: Request) -> PeerCertificate | None:
    """Return the certificate on whose connection a request came; None where none was asked for."""
    connection: Connection | None = getattr(request.state, "connection", None)
    return parsed(connection.certificate) if connection is not None and connection.certificate else None


@lru_cache(maxsize=MOST)
def parsed(der: bytes) -> PeerCertificate:
    """Return what is in a certificate, DER; raises ValueError for one that is none."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    found = x509.load_der_x509_certificate(der)
    key = found.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PeerCertificate(hashlib.sha256(key).hexdigest(), found.issuer.public_bytes(), found.serial_number)


def read_certificate(path: Path) -> PeerCertificate:
    """Return what is in a certificate's file, PEM; raises ServeError for another file."""
    from sflam.serve.installed import expect_installed

    expect_installed()
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    with reading(f"certificate {path}", "give a PEM file", ServeError):
        pem = path.read_bytes()
    try:
        return parsed(x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER))
    except ValueError as error:
        raise ServeError(
            f"{path} holds no certificate ({error}); give its PEM file, and not its key's"
        ) from error
