"""The domain put together: the one place where its parts are made and joined."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from provisioner import facts, figures
from provisioner.ephemeral import EphemeralPublishing
from provisioner.errors import NotReady, PoolUnavailable
from provisioner.facts import PoolFacts
from provisioner.figures import PoolFigures
from provisioner.measuring import Measuring, look_for_escaped
from provisioner.operations import Operations
from provisioner.pod_sweep import PodSweep
from provisioner.pool import Contents
from provisioner.pools import Pools
from provisioner.publishing import Publishing
from provisioner.rounds import Rounds
from provisioner.settings import Settings
from provisioner.targets import TargetRoots
from provisioner.volumes import Volumes


class Provisioner:
    """Volumes on the pools of one node: `lock`, `start`, then the services; `stop` at the end."""

    def __init__(self, settings: Settings) -> None:
        """Join the parts; the disk is not touched yet."""
        operations = Operations()
        self._pools = Pools(settings)
        self.volumes = Volumes(self._pools, operations)
        publishing = Publishing(self._pools, operations, TargetRoots(settings.target_roots))
        self.publishing = EphemeralPublishing(settings, self._pools, operations, self.volumes, publishing)
        self.pod_sweep = PodSweep(self._pools, operations, self.volumes, settings.target_roots)
        interval_s = settings.measure_interval_seconds
        self._measurer = Rounds(Measuring(operations).measure, self._measurable, interval_s, name="measurer")
        self._escapes = Rounds(look_for_escaped, self._measurable, interval_s, name="escapes")

    def lock(self) -> None:
        """Become the only process that serves these pools; PoolLocked names the other one."""
        self._pools.lock()

    def start(self) -> None:
        """Sweep, read all volumes, and begin the background work; volumes.ready is True afterwards."""
        self._pools.load()
        self._measurer.start()
        self._escapes.start()
        self.pod_sweep.start()

    def facts(self) -> tuple[PoolFacts, ...]:
        """Tell others what they must know of the pools."""
        return facts.of_pools(self._pools)

    def promisable_bytes(self, pool_id: str) -> int | None:
        """Give what one more volume may have in a pool; None where this node has no such pool."""
        pools = (pool for pool in self._pools.pools if pool.pool_id == pool_id)
        return next(map(facts.promisable_bytes, pools), None)

    def stop(self) -> None:
        """End the background work and let the pools go."""
        self.pod_sweep.stop()
        for rounds in (self._measurer, self._escapes):
            rounds.stop()
        for rounds in (self._measurer, self._escapes):
            rounds.join()
        self._pools.close()

    def figures(self) -> list[PoolFigures]:
        """Tell how the pools are, without asking their disks."""
        return [figures.of_pool(pool) for pool in self._pools.pools]

    def _measurable(self) -> Iterator[Contents]:
        """Give the pools that are there, each held while it is measured."""
        for pool in self._pools.pools:
            with suppress(PoolUnavailable, NotReady), pool.use() as contents:
                yield contents
