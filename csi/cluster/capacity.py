"""How much room the nodes have, from what they said last and what is being created on them just now."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from provisioner import capabilities
from provisioner.backends import IMAGE_NAME
from provisioner.backends.choosing import content_of
from provisioner.errors import InvalidRequest, OutOfCapacity
from provisioner.loops import BLOCK_BYTES
from provisioner.model import AvailableCapacity
from provisioner.parameters import parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi.cluster.directory import Directory, Node
    from provisioner.backends import Content
    from provisioner.facts import PoolFacts
    from provisioner.model import Capability
    from provisioner.parameters import ClassParameters

_NONE = AvailableCapacity(0, 0)
_MOST_BYTES = 2**63 - 1  # that CSI can say; a node may claim as much for itself


class InFlight:
    """Bytes that creates ask for which are not answered yet, by pool: a burst must not see one room many times."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._bytes: dict[str, int] = {}

    @contextmanager
    def creating(self, pool: PoolFacts, size_bytes: int, *, only_if_fits: bool) -> Iterator[None]:
        """Count a create while it runs; OutOfCapacity where it should fit beside all others, and does not."""
        with self._guard:
            left = self.room(pool)
            if only_if_fits and size_bytes > left:
                raise OutOfCapacity(f"can promise {left} bytes of {size_bytes}")
            self._bytes[pool.id] = self._bytes.get(pool.id, 0) + size_bytes
        try:
            yield
        finally:
            with self._guard:
                self._bytes[pool.id] -= size_bytes
                if not self._bytes[pool.id]:
                    del self._bytes[pool.id]

    def room(self, pool: PoolFacts) -> int:
        """Give what one more volume may have in a pool, should all that is in flight succeed."""
        return max(0, pool.promisable_bytes - self._bytes.get(pool.id, 0))


class Capacity:
    """Answers GetCapacity without asking any node."""

    def __init__(self, directory: Directory, in_flight: InFlight) -> None:
        self._directory, self._in_flight = directory, in_flight

    def available(
        self, node_ids: list[str] | None, parameters: dict[str, str], wanted: tuple[Capability, ...]
    ) -> AvailableCapacity:
        """Give what one more volume of a class may have on these nodes (None: on any); of a class that is wrong, 0."""
        try:
            asked = parse(parameters)
            content = content_of(asked, wanted)
        except InvalidRequest:
            return _NONE
        if node_ids is None:
            nodes = self._directory.nodes()
        else:
            nodes = [node for node in map(self._directory.node_with_id, node_ids) if node]
        room = [self._room(node, asked, content, wanted) for node in nodes]
        return AvailableCapacity(min(sum(room), _MOST_BYTES), max(room, default=0))

    def _room(self, node: Node, asked: ClassParameters, content: Content, wanted: tuple[Capability, ...]) -> int:
        pool = node.pool_named(asked.pool)
        if pool is None or not pool.promisable_bytes:
            return 0
        if not self._directory.is_alive(node.name) or not self._directory.owns(node, pool.id):
            return 0
        backend = pool.backend_for(asked, content)
        image = backend == IMAGE_NAME
        nature = capabilities.Nature(content.block, content.fs_type or pool.fs_type, image and not content.block)
        try:
            for capability in wanted:
                capabilities.check(capability, nature)
        except InvalidRequest:
            return 0
        room = self._in_flight.room(pool) if backend else 0
        return room // BLOCK_BYTES * BLOCK_BYTES if image else room  # what can be created is what is told
