"""Certificates that parse at first sight and surprise whoever looks further: a rooted node can announce each."""

from __future__ import annotations

import datetime as dt
from base64 import encodebytes

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

_NAME = "evil.local-path.csi.dev"
_VERSION_3, _VERSION_6 = b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05"
_SUBJECTS, _ISSUERS = b"\x06\x03\x55\x1d\x11", b"\x06\x03\x55\x1d\x12"  # RFC 5280, 4.2.1.6 and 7
_DNS, _X400, _EDI = b"\x82\x17evil", b"\xa3\x17evil", b"\xa5\x17evil"


def certificates() -> dict[str, str]:
    """Give PEM by what is wrong. The bytes are changed after signing: nobody checks a signature of one's own."""
    plain = _certificate()
    return {
        "an extension twice": _pem(plain.replace(_ISSUERS, _SUBJECTS)),
        "a version that does not exist": _pem(plain.replace(_VERSION_3, _VERSION_6)),
        "a name of a kind that nobody reads": _pem(plain.replace(_DNS, _X400)),
        "another such kind": _pem(plain.replace(_DNS, _EDI)),
        "bytes that are no text": _pem(plain.replace(b"evil.", b"\xff\xfe\xff\xfe.")),
    }


def _certificate() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    builder = x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
    builder = builder.serial_number(1).not_valid_before(dt.datetime(2000, 1, 1, tzinfo=dt.UTC))
    builder = builder.not_valid_after(dt.datetime(2100, 1, 1, tzinfo=dt.UTC))
    for kind in (x509.SubjectAlternativeName, x509.IssuerAlternativeName):
        builder = builder.add_extension(kind([x509.DNSName(_NAME)]), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def _pem(der: bytes) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{encodebytes(der).decode()}-----END CERTIFICATE-----\n"
