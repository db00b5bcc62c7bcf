"""Leases as nodes and controllers write them, for tests of those who read them."""

from __future__ import annotations

from functools import cache
from typing import Any

from csi.cluster import announcement
from csi.cluster.announcement import SCHEMA, Announcement
from csi.cluster.certificates import Credentials, new_credentials
from csi.cluster.leases import Lease, LeaseSpec, Metadata, OwnerReference
from provisioner.facts import PoolFacts

GIB = 2**30


@cache
def credentials_of(name: str) -> Credentials:  # noqa: ARG001 - what is remembered
    """Give somebody's key pair, the same each time."""
    return new_credentials()


def facts(pool_id: str, name: str = "default", room: int = 10 * GIB, **more: Any) -> PoolFacts:
    """Give the facts of a pool with plain directories."""
    return PoolFacts(name, pool_id, "ext4", room, GIB, **{"means": ("directory",), **more})


def node_lease(name: str, *pools: PoolFacts, renewal: str = "1", said: str | None = None, uid: str = "") -> Lease:
    """Give the Lease of a node. said: instead of its announcement."""
    certificate = credentials_of(name).certificate.decode()
    text = announcement.encode(Announcement(SCHEMA, certificate, "10.0.0.1:9901", pools)) if said is None else said
    owner = OwnerReference("Node", name, uid or f"uid-of-{name}")
    metadata = Metadata(f"node-{name}", annotations={announcement.ANNOTATION: text}, owner_references=[owner])
    return Lease(metadata, LeaseSpec(f"agent-{name}", renewal))


def slot_lease(slot: str, holder: str, renewal: str = "1", said: str | None = None) -> Lease:
    """Give the Lease of a controllers' slot."""
    certificate = credentials_of(holder).certificate.decode() if holder else ""
    text = announcement.encode(Announcement(SCHEMA, certificate)) if said is None else said
    return Lease(Metadata(slot, annotations={announcement.ANNOTATION: text}), LeaseSpec(holder, renewal))


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Give the time."""
        return self.now
