"""Key pairs and certificates that live as long as a process.

There is no authority above them: a certificate is trusted because it stands in the Lease of its owner, and as
long as that Lease is renewed. So none has an end date, and none a beginning that a slow clock could miss.
"""

from __future__ import annotations

import datetime as dt
import secrets
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

# RFC 5280, 4.1.2.5: the date for a certificate that has no end.
_NO_END = dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)
_BEGINNING = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
_SUFFIX = ".local-path.csi.dev"
LONGEST_PEM = 4096


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """A private key and the certificate of its public half, both PEM. server_name: what the certificate says."""

    private_key: bytes
    certificate: bytes
    server_name: str


def new_credentials() -> Credentials:
    """Make a key pair and sign its certificate with it.

    The subject is its own: of several trust anchors with one subject, TLS would find only the first.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    server_name = secrets.token_hex(12) + _SUFFIX
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, server_name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_BEGINNING)
        .not_valid_after(_NO_END)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(server_name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Credentials(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        certificate.public_bytes(serialization.Encoding.PEM),
        server_name,
    )


def server_name_of(pem: str) -> str:
    """Give the name in somebody else's certificate; ValueError unless it is one certificate with one name of ours."""
    if len(pem) > LONGEST_PEM:
        raise ValueError(f"wanted a certificate of at most {LONGEST_PEM} characters, found {len(pem)}")
    try:
        names = _names_in(pem)
    except ValueError:
        raise
    except Exception as error:  # what a certificate can be wrong in has errors of many kinds, without a common base
        raise ValueError(f"wanted a certificate that can be read, found one with an error: {error}") from error
    if len(names) != 1 or not names[0].endswith(_SUFFIX):
        raise ValueError(f"wanted one name, that ends in {_SUFFIX}, found {[name[:253] for name in names[:2]]}")
    return names[0]


def _names_in(pem: str) -> list[str]:
    found = x509.load_pem_x509_certificates(pem.encode())
    if len(found) != 1:
        raise ValueError(f"wanted one certificate, found {len(found)}")
    try:
        names = found[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as error:
        raise ValueError("wanted a certificate with a name in it, found none") from error
    return names.get_values_for_type(x509.DNSName)
