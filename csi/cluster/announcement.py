"""What a node or a controller says of itself in its Lease.

    metadata.annotations["local-path.csi.dev/announcement"] = {"schema": 1, "address": ..., "certificate": ..., ...}

Readers and writers may be one release apart. So a reader ignores keys that it does not know, and every key that
comes in a later release has a default; only a change that older readers must not live with raises `schema`.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated

import msgspec

from csi.cluster.certificates import LONGEST_PEM
from provisioner.facts import PoolFacts

ANNOTATION = "local-path.csi.dev/announcement"
SCHEMA = 1

_MOST_POOLS = 256
_V6 = 6
_PORTS = 65536


class Announcement(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One process. address: 'ip:port' of a node's Controller, '' of a controller; certificate: PEM.

    only_if_unused: whether the node knows the condition of `csi.cluster.orphans`, and would not delete without it.
    """

    schema: int
    certificate: Annotated[str, msgspec.Meta(max_length=LONGEST_PEM)]
    address: Annotated[str, msgspec.Meta(max_length=300)] = ""
    pools: Annotated[tuple[PoolFacts, ...], msgspec.Meta(max_length=_MOST_POOLS)] = ()
    only_if_unused: bool = False

    def check_address(self) -> None:
        """Raise ValueError unless the address is 'ip:port': a name would be looked up, and some mean a socket."""
        host, _, port = self.address.rpartition(":")
        is_bracketed = host.startswith("[") and host.endswith("]")
        ip = ipaddress.ip_address(host[1:-1] if is_bracketed else host)
        if (ip.version == _V6) != is_bracketed or "%" in host:
            raise ValueError(f"address: wanted 'ip:port' or '[ip]:port', found {self.address!r}")
        if not (port.isascii() and port.isdecimal() and 0 < int(port) < _PORTS):
            raise ValueError(f"address: wanted a port, found {port!r}")


class _Header(msgspec.Struct):
    schema: int


_HEADER = msgspec.json.Decoder(_Header)
_ANNOUNCEMENT = msgspec.json.Decoder(Announcement)


def encode(announcement: Announcement) -> str:
    """Give the annotation's value."""
    return msgspec.json.encode(announcement).decode()


def decode(text: str) -> Announcement:
    """Read an annotation's value; ValueError says why it cannot be used."""
    try:
        schema = _HEADER.decode(text).schema
        if schema > SCHEMA:
            raise ValueError(f"schema {schema} is newer than {SCHEMA}, the newest this version knows")
        return _ANNOUNCEMENT.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
