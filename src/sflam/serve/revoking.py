"""Certificates of a private authority are taken back: its revocation list is written anew, signed by its key."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

from sflam.errors import ServeError
from sflam.files import replace_file
from sflam.serve.certificates import CA

FILE = "crl.pem"


def revoke_certificates(
    folder: Path, which: Sequence[str], days: int = 365, now: datetime.datetime | None = None
) -> tuple[Path, int]:
    """Write ``crl.pem`` with the certificates revoked so far and these; return it, and how many there are.

    Args:
        folder: of the authority, as :func:`make_certificates` wrote it.
        which: names of devices with a certificate there, or paths of PEM files; none writes the same list for longer.
        days: until the list must be written again.
        now: from when on, less a day for clocks that are behind; by this machine's clock where None.

    Raises:
        ServeError: the library or the authority is missing, a certificate is not there or another authority's, or the
            folder cannot be written.
    """
    from sflam.serve.installed import expect_installed

    expect_installed()
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    if days < 1:
        raise ServeError(f"a revocation list good for {days} days is of no use; give at least 1")
    now = (now or datetime.datetime.now(datetime.UTC)).replace(microsecond=0)
    try:
        key = serialization.load_pem_private_key((folder / f"{CA}.key").read_bytes(), None)
        authority = x509.load_pem_x509_certificate((folder / f"{CA}.pem").read_bytes())
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("its key is of another kind")
        path = folder / FILE
        before = list(x509.load_pem_x509_crl(path.read_bytes())) if path.exists() else []
    except (OSError, ValueError) as error:
        raise ServeError(
            f"the authority in {folder} or its list cannot be used ({error}); give the folder of sflam certs by --out"
        ) from error
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(now - datetime.timedelta(days=1))
        .next_update(now + datetime.timedelta(days=days))
        .add_extension(
            x509.CRLNumber(int(now.timestamp())), critical=False
        )  # each list's is above the last one's
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    revoked = {one.serial_number: one.revocation_date_utc for one in before}
    for name in which:
        file = Path(name) if name.endswith(".pem") else folder / f"{name}.pem"
        try:
            found = x509.load_pem_x509_certificate(file.read_bytes())
        except (OSError, ValueError) as error:
            raise ServeError(
                f"certificate {file} cannot be read ({error}); name a device of {folder}, or a PEM file"
            ) from error
        if found.issuer != authority.subject or found.serial_number == authority.serial_number:
            raise ServeError(f"certificate {file} is none that the authority in {folder} made for a device")
        revoked.setdefault(found.serial_number, now)
    for serial, at in sorted(revoked.items()):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at)
        builder = builder.add_revoked_certificate(entry.build())
    made = builder.sign(key, hashes.SHA256())
    try:
        replace_file(path, made.public_bytes(serialization.Encoding.PEM))
    except OSError as error:
        raise ServeError(f"{path} cannot be written ({error.strerror}); make it writable") from error
    return path, len(revoked)
