"""Which nodes a new volume may go to, in the order in which they are to be tried."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from csi.wire.topology import KEY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from csi.pb import csi_pb2


def wanted_ids(requirement: csi_pb2.TopologyRequirement) -> list[str] | None:
    """Give the node ids that a requirement admits, the preferred ones first; None where it admits every node.

    `preferred` counts only within `requisite`, where there is one: a caller that names places means them.
    """
    preferred, requisite = _ids(requirement.preferred), _ids(requirement.requisite)
    if not requirement.requisite:
        return None if not requirement.preferred or None in preferred else _unique(preferred)
    if None in requisite:
        return None
    allowed = set(requisite)
    return _unique([*(node_id for node_id in preferred if node_id in allowed), *requisite])


def _ids(topologies: Iterable[csi_pb2.Topology]) -> list[str | None]:
    """Give the node id of each place, None of one that is everywhere; places that are none of ours are left out."""
    found: list[str | None] = []
    for topology in topologies:
        segments = {key.lower(): value for key, value in topology.segments.items()}
        if not segments:
            found.append(None)
        elif set(segments) == {KEY}:
            found.append(segments[KEY])
    return found


def _unique(node_ids: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(node_id for node_id in node_ids if node_id is not None))


def spread(name: str, node_ids: Iterable[str]) -> list[str]:
    """Order nodes by a hash of the volume's name: volumes spread, and a retry goes the same way as the first try."""
    return sorted(node_ids, key=lambda node_id: hashlib.sha256(f"{name}\0{node_id}".encode()).digest())
