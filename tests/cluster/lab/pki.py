"""Certificates of the cluster, made anew for each, and the credentials of who talks to its API."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.cluster.lab.site import ADMIN, API_SERVICE, API_URL, FOLDER, HUB_ADDRESS, Node

PKI = FOLDER / "pki"
CA = PKI / "ca.crt"
_LIFE = dt.timedelta(days=365)
_EARLIER = dt.timedelta(hours=1)  # clocks differ


def make(nodes: list[Node]) -> None:
    """Write an authority, certificates for the API server, the administrator and each kubelet, and kubeconfigs."""
    PKI.mkdir(parents=True)
    authority = _Authority()
    authority.issue(
        "apiserver", "kube-apiserver", "", ["kubernetes.default.svc"], [API_SERVICE, HUB_ADDRESS, "127.0.0.1"]
    )
    authority.issue("admin", "admin", "system:masters", [], [])
    _write_kubeconfig(ADMIN, "admin")
    for node in nodes:
        authority.issue(node.name, f"system:node:{node.name}", "system:nodes", [node.name], [node.address])
        _write_kubeconfig(kubeconfig(node), node.name)
    accounts = _new_key(PKI / "sa.key")
    (PKI / "sa.pub").write_bytes(accounts.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def kubeconfig(node: Node) -> Path:
    """Give the path of a kubelet's credentials."""
    return FOLDER / f"{node.name}.kubeconfig"


class _Authority:
    """Signs certificates with all that a strict reader, such as Python's from 3.13 on, wants to find in them."""

    def __init__(self) -> None:
        self._key = _new_key(PKI / "ca.key")
        self._name = _subject("csi-local-path test cluster")
        self._identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        built = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(True, 0), critical=True)
        self._write(CA, built.add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True))

    def issue(self, file: str, name: str, organization: str, hosts: list[str], addresses: list[str]) -> None:
        """Write `file`.key and `file`.crt for a subject that is server and client."""
        key = _new_key(PKI / f"{file}.key")
        purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        built = self._builder(_subject(name, organization), key).add_extension(purposes, critical=False)
        built = built.add_extension(_key_usage(digital_signature=True), critical=True)
        others = [*map(x509.DNSName, hosts), *(x509.IPAddress(ipaddress.ip_address(one)) for one in addresses)]
        if others:
            built = built.add_extension(x509.SubjectAlternativeName(others), critical=False)
        self._write(PKI / f"{file}.crt", built)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._identifier)
        return (
            x509.CertificateBuilder(issuer_name=self._name, subject_name=subject, public_key=key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _EARLIER)
            .not_valid_after(now + _LIFE)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(issuer, critical=False)
        )

    def _write(self, path: Path, built: x509.CertificateBuilder) -> None:
        path.write_bytes(built.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))


def _key_usage(**wanted: bool) -> x509.KeyUsage:
    names = "digital_signature content_commitment key_encipherment data_encipherment key_agreement"
    names += " key_cert_sign crl_sign encipher_only decipher_only"
    return x509.KeyUsage(**{name: wanted.get(name, False) for name in names.split()})


def _subject(name: str, organization: str = "") -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)] if organization else []
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _new_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key


def _write_kubeconfig(path: Path, user: str) -> None:
    credentials = {"client-certificate": f"{PKI}/{user}.crt", "client-key": f"{PKI}/{user}.key"}
    written = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": {"server": API_URL, "certificate-authority": str(CA)}}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": user}}],
        "current-context": "lab",
    }
    path.write_text(json.dumps(written))
