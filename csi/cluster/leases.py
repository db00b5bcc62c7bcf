"""Leases of the driver's namespace: read as JSON, written by server-side apply.

Who wrote a Lease is told by its name alone, which an admission policy ties to the writer's token. Labels,
annotations and everything else in it are its writer's own words.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import msgspec

from csi.surroundings import SurroundingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

NODE_PREFIX = "node-"
SLOTS = ("controller-0", "controller-1")

# A Lease's name is a DNS subdomain, and the policy compares it with prefix and node name whole: no digest.
_LONGEST_NAME = 253


class OwnerReference(msgspec.Struct, frozen=True, rename="camel"):
    """Whose end is the Lease's end."""

    kind: str = ""
    name: str = ""
    uid: str = ""


class Metadata(msgspec.Struct, frozen=True, rename="camel"):
    """Of what the API server keeps of every object, what we look at."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    annotations: dict[str, str] = {}
    owner_references: list[OwnerReference] = []


class LeaseSpec(msgspec.Struct, frozen=True, rename="camel"):
    """holder_identity: '' or None where the Lease was given back."""

    holder_identity: str | None = None
    renew_time: str | None = None


class Lease(msgspec.Struct, frozen=True):
    """A Lease as it is read."""

    metadata: Metadata = Metadata()
    spec: LeaseSpec = LeaseSpec()


_LEASE = msgspec.json.Decoder(Lease)


def decode(content: bytes | msgspec.Raw) -> Lease:
    """Read a Lease; MsgspecError where it is none."""
    return _LEASE.decode(content)


def path_of(namespace: str, name: str = "") -> str:
    """Give the path of a Lease, or of all."""
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases" + (f"/{name}" if name else "")


def name_for(node_name: str) -> str:
    """Name the Lease of a node; SurroundingsError where it would be longer than names may be."""
    name = NODE_PREFIX + node_name
    if len(name) > _LONGEST_NAME:
        most = _LONGEST_NAME - len(NODE_PREFIX)
        raise SurroundingsError(f"NODE_NAME: wanted at most {most} characters, found {len(node_name)}: {node_name!r}")
    return name


def node_of(lease: Lease) -> str:
    """Name the node that a Lease is of; '' where it is of none."""
    name = lease.metadata.name
    return name.removeprefix(NODE_PREFIX) if name.startswith(NODE_PREFIX) else ""


def node_uid_of(lease: Lease) -> str:
    """Give the uid of the Node that owns a node's Lease, which the policy compares with the writer's token."""
    node = node_of(lease)
    owners = (o.uid for o in lease.metadata.owner_references if o.kind == "Node" and o.name == node)
    return next(owners, "")


def body(
    namespace: str,
    name: str,
    annotations: Mapping[str, str],
    spec: Mapping[str, Any],
    node: OwnerReference | None = None,
) -> dict[str, Any]:
    """Give a Lease as it is written; a node's is owned by its Node, so that it goes when the Node goes."""
    metadata: dict[str, Any] = {"name": name, "namespace": namespace, "annotations": dict(annotations)}
    if node:
        metadata["ownerReferences"] = [{"apiVersion": "v1", "kind": "Node", "name": node.name, "uid": node.uid}]
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": dict(spec)}


def spec_of(holder: str, seconds: float) -> dict[str, Any]:
    """Give the spec of a Lease that is held by `holder` from now on for some seconds."""
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {"holderIdentity": holder, "leaseDurationSeconds": max(1, round(seconds)), "renewTime": now}
