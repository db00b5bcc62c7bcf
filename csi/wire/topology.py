"""Where volumes can be reached: on their node, and nowhere else (CSI spec, "Topology")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi.pb import csi_pb2
from provisioner.errors import NodeNotInTopology

if TYPE_CHECKING:
    from collections.abc import Iterable

KEY = "topology.local-path.csi.dev/node"

_SHOWN = 3


def topology_of(node_id: str) -> csi_pb2.Topology:
    """Give the topology that a node and its volumes have."""
    return csi_pb2.Topology(segments={KEY: node_id})


def admits(topology: csi_pb2.Topology, node_id: str) -> bool:
    """Tell whether the node lies in a topology. Keys have no case; one that is not ours is no place of ours."""
    return all(key.lower() == KEY and value == node_id for key, value in topology.segments.items())


def check_requirement(requirement: csi_pb2.TopologyRequirement, node_id: str) -> None:
    """Raise NodeNotInTopology where a volume of this node could not be reached from where it must be.

    `preferred` counts only without `requisite`: a caller that names places and no others means them.
    """
    wanted = requirement.requisite or requirement.preferred
    if wanted and not any(admits(topology, node_id) for topology in wanted):
        raise NodeNotInTopology(
            f"accessibility_requirements: wanted {_listed(wanted)}, but volumes made here are at {KEY}={node_id} only"
        )


def _listed(topologies: Iterable[csi_pb2.Topology]) -> str:
    texts = [",".join(f"{key}={value}" for key, value in sorted(t.segments.items())) for t in topologies]
    return " or ".join(texts[:_SHOWN]) + (f" or {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else "")
