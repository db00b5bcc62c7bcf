"""What nodes and controllers say of themselves, read by a release before or after theirs."""

from __future__ import annotations

import json

import pytest
from cryptography import x509

from csi.cluster.announcement import Announcement, decode, encode
from csi.cluster.certificates import new_credentials, server_name_of
from tests.support.announced import credentials_of, facts
from tests.support.malformed import certificates

POOL = "0123456789abcdef"


def test_what_is_said_is_read() -> None:
    said = Announcement(1, "PEM", "10.0.0.1:9901", (facts(POOL), facts("", "late", 0)))
    assert decode(encode(said)) == said


def test_a_later_release_may_say_more() -> None:
    more = {"schema": 1, "certificate": "PEM", "address": "a:1", "zone": "z", "pools": [{"name": "p", "colour": "red"}]}
    found = decode(json.dumps(more))
    assert (found.address, found.pools[0].name, found.pools[0].promisable_bytes) == ("a:1", "p", 0)


def test_an_earlier_release_may_say_less() -> None:
    found = decode('{"schema": 1, "certificate": "PEM"}')
    assert (found.pools, found.only_if_unused) == ((), False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "\ud800",
        '{"schema": 2, "certificate": "PEM"}',
        '{"schema": 1}',
        '{"schema": 1, "certificate": 7}',
        json.dumps({"schema": 1, "certificate": "x" * 4097}),
        json.dumps({"schema": 1, "certificate": "", "pools": [{"name": "p", "id": "../../etc"}]}),
        json.dumps({"schema": 1, "certificate": "", "pools": [{"name": "p", "promisable_bytes": -1}]}),
        json.dumps({"schema": 1, "certificate": "", "pools": [{"name": "p", "promisable_bytes": 2**64}]}),
        json.dumps({"schema": 1, "certificate": "", "pools": [{"name": "p"}] * 257}),
        "[" * 100_000,
    ],
)
def test_what_cannot_be_used_is_one_kind_of_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - its kind is all that is promised
        decode(text)


def test_certificates_have_no_end_and_a_subject_of_their_own() -> None:
    first, second = (x509.load_pem_x509_certificate(new_credentials().certificate) for _ in range(2))
    assert first.not_valid_after_utc.year == 9999
    assert first.not_valid_before_utc.year == 2000
    assert first.subject != second.subject
    assert first.issuer == first.subject


def test_the_name_in_a_certificate_is_read() -> None:
    ours = new_credentials()
    assert server_name_of(ours.certificate.decode()) == ours.server_name
    assert "PRIVATE" not in repr(ours)


@pytest.mark.parametrize("pem", ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "x" * 5000])
def test_no_certificate_is_an_error(pem: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - likewise
        server_name_of(pem)


@pytest.mark.parametrize("what", certificates())
def test_a_certificate_that_surprises_is_the_same_kind_of_error(what: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - likewise
        server_name_of(certificates()[what])


@pytest.mark.parametrize("address", ["10.0.0.1:9901", "[fd00::1]:1", "127.0.0.1:65535"])
def test_an_address_is_an_ip_and_a_port(address: str) -> None:
    Announcement(1, "PEM", address).check_address()


@pytest.mark.parametrize(
    "address",
    ["", "10.0.0.1", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.1:\N{ARABIC-INDIC DIGIT ONE}", "fd00::1:9901",
     "[10.0.0.1]:1", "[fe80::1%eth0]:1", "evil.example:9901", "dns:///evil.example", "unix:/csi/csi.sock",
     "unix:/csi/csi.sock:1", "ipv4:10.0.0.1:9901", "10.0.0.1:1,10.0.0.2:2"],
)  # fmt: skip
def test_nothing_else_is_called(address: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - likewise
        Announcement(1, "PEM", address).check_address()


def test_two_certificates_in_one_are_an_error() -> None:
    with pytest.raises(ValueError, match="wanted one certificate, found 2"):
        server_name_of((credentials_of("a").certificate + credentials_of("b").certificate).decode())
