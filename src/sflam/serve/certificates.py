"""A private certificate authority for a fleet: a certificate for its server, and one per device for mutual TLS.

Keys are elliptic (P-256) and never leave the folder they are made in, except as the user copies them.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from sflam.errors import ServeError
from sflam.files import ANYONE, replace_file

CA, SERVER = "ca", "server"
AUTHORITY = "sflam fleet authority"


def make_certificates(
    folder: Path,
    hosts: Sequence[str],
    clients: Sequence[str] = (),
    days: int = 365,
    now: datetime.datetime | None = None,
) -> list[Path]:
    """Write an authority (unless the folder has one that is still good) and what it signs; return the files written.

    An authority that has expired keeps its key and gets a new certificate, which devices need; nothing is signed for
    longer than the authority is good.

    Args:
        folder: where ``NAME.pem`` (certificate) and ``NAME.key`` (private key, mode 600) are written.
        hosts: names and addresses the server is reached by; empty makes no server certificate.
        clients: names of devices to make certificates for.
        days: how long they are good.
        now: from when on, less a day for clocks that are behind; by this machine's clock where None.

    Raises:
        ServeError: the library is missing, a name is odd, or the folder cannot be written.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    except ImportError as error:
        raise ServeError("certificates need the cryptography library; pip install 'sflam[serve]'") from error
    if days < 1:
        raise ServeError(f"certificates good for {days} days are of no use; give at least 1")
    for name in clients:
        if name in (CA, SERVER) or not name or not all(c.isalnum() or c in "-_." for c in name):
            raise ServeError(
                f"client name {name!r}: use letters, digits, '-', '_' or '.', and neither ca nor server"
            )

    now = (now or datetime.datetime.now(datetime.UTC)).replace(microsecond=0)
    end = now + datetime.timedelta(days=days)
    written: list[Path] = []

    def common(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    def put(name: str, body: bytes) -> None:
        path = folder / name
        replace_file(path, body, mode=0o600 if name.endswith(".key") else ANYONE)
        written.append(path)

    def signed(
        name: str,
        subject: str,
        usage: x509.ObjectIdentifier | None,
        names: list[x509.GeneralName],
        kept: ec.EllipticCurvePrivateKey | None = None,
    ) -> None:
        key = kept or ec.generate_private_key(ec.SECP256R1())
        signer = authority[0] if authority else key
        ca = usage is None
        unused = (
            "content_commitment key_encipherment data_encipherment key_agreement encipher_only decipher_only"
        )
        signs = {"digital_signature": not ca, "key_cert_sign": ca, "crl_sign": ca}
        extensions: list[tuple[x509.ExtensionType, bool]] = [  # each with whether it is critical
            (x509.BasicConstraints(ca=ca, path_length=0 if ca else None), True),
            (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False),
            (x509.KeyUsage(**signs, **dict.fromkeys(unused.split(), False)), True),
        ]
        if usage is not None:
            extensions.append((x509.ExtendedKeyUsage([usage]), False))
        if names:
            extensions.append((x509.SubjectAlternativeName(names), False))
        builder = (
            x509.CertificateBuilder()
            .subject_name(common(subject))
            .issuer_name(authority[1].subject if authority else common(subject))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))  # devices' clocks may be behind
            .not_valid_after(min(end, authority[1].not_valid_after_utc) if authority else end)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        certificate = builder.sign(signer, hashes.SHA256())
        pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        put(f"{name}.key", key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
        put(f"{name}.pem", certificate.public_bytes(pem))

    def load() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        key = serialization.load_pem_private_key((folder / f"{CA}.key").read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("its key is of another kind")
        return key, x509.load_pem_x509_certificate((folder / f"{CA}.pem").read_bytes())

    authority: tuple[ec.EllipticCurvePrivateKey, x509.Certificate] | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / f"{CA}.key").exists():
            signed(CA, AUTHORITY, None, [])
        found = load()
        if now >= found[1].not_valid_after_utc:
            signed(CA, AUTHORITY, None, [], kept=found[0])
            found = load()
        authority = found
        if hosts:
            names = [_general_name(host) for host in hosts]
            signed(SERVER, hosts[0][:64], ExtendedKeyUsageOID.SERVER_AUTH, names)
        for name in clients:
            signed(name, name[:64], ExtendedKeyUsageOID.CLIENT_AUTH, [])
    except OSError as error:
        raise ServeError(
            f"certificates cannot be written to {folder} ({error.strerror}); give another folder"
        ) from error
    except ValueError as error:
        raise ServeError(
            f"no certificates could be made in {folder} ({error}); check the names, or use an empty folder"
        ) from error
    return written


def valid_between(pem: bytes) -> tuple[datetime.datetime, datetime.datetime]:
    """Return when a certificate begins and ceases to be good; raises ValueError where it is none."""
    from cryptography import x509

    certificate = x509.load_pem_x509_certificate(pem)
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc


def _general_name(host: str):  # type: ignore[no-untyped-def]  # a type of a library that is imported when needed
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
