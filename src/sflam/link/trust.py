"""Whom a connection trusts: an authority, the system's, or the one certificate that a server is known by."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

from sflam.errors import ServeError


def tls_context(ca: Path | None, certificate: Path | None, key: Path | None, pinned: str) -> ssl.SSLContext:
    """Return what a client of HTTPS trusts and shows.

    Args:
        ca: PEM file of the authority that signed the server's certificate; None takes the system's.
        certificate: PEM file of the client's own certificate, where the server asks for one.
        key: PEM file of its key.
        pinned: the server's certificate itself, PEM, which alone is trusted then; "" for none.

    Raises:
        ServeError: they cannot be used.
    """
    try:
        if pinned:
            context = ssl.create_default_context(cadata=pinned)
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it is no authority, and needs none
        else:
            context = ssl.create_default_context(cafile=None if ca is None else str(ca))
        if certificate:
            context.load_cert_chain(certificate, key)
        return context
    except (OSError, ValueError) as error:
        where = "of the server that the round names" if pinned else "given"
        raise ServeError(
            f"the certificates {where} cannot be used ({error}); check --ca, --cert and --key"
        ) from error


def distrust(error: ssl.SSLCertVerificationError) -> str:
    """Return why a certificate is not trusted, and what to do."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    reason = error.verify_message
    if "expired" in reason:
        return (
            f"has expired, by this machine's clock ({now}); make a new one with sflam certs, or set the clock"
        )
    if "not yet valid" in reason:
        return f"is not yet valid, by this machine's clock ({now}); set the clock"
    if "match" in reason or "alternative name" in reason:
        return (
            f"is for another name ({reason}); make one with sflam certs --host, for the name that devices use"
        )
    return f"is not trusted ({reason}); give the authority that signed it by --ca"
