"""All pools of a node: found, locked, read; a call is routed by the pool id in its volume_id."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec
import structlog

from provisioner.disk import Disk, PoolLocked
from provisioner.errors import InvalidRequest, NotReady, PoolUnavailable, Unavailable
from provisioner.linux.mountinfo import read_mountinfo
from provisioner.pool import Contents, Pool
from provisioner.settings import Settings

log = structlog.get_logger(__name__)

_LOOK_AGAIN_S = 2.0
_STOP_S = 10.0


class Pools:
    """The pools in the order of the settings; the first one is the default."""

    def __init__(self, settings: Settings) -> None:
        """Know the settings; `lock` and `load` bring the disks."""
        self.pools = [
            Pool(msgspec.structs.replace(pool, enforce=pool.enforce or settings.enforce)) for pool in settings.pools
        ]
        self.ready = False
        self._lock_wait_s = settings.lock_wait_seconds
        self._stopping = threading.Event()
        # Nobody can end a thread that waits for a dead disk: the process must be able to end without it.
        self._watchers = [
            threading.Thread(target=self._watch, args=(pool,), name=f"pool-{pool.settings.name}", daemon=True)
            for pool in self.pools
        ]

    def lock(self) -> None:
        """Find and lock every pool that is there; PoolLocked where another process serves one."""
        disks: dict[Pool, Disk] = {}
        try:
            for pool in self.pools:
                disk = self._open(pool, may_init=True)
                if disk:
                    disks[pool] = disk
            self._refuse_twins(disks)
            for pool in list(disks):
                self._lock(pool, disks)
        except BaseException:
            for disk in disks.values():
                disk.close()
            raise
        for pool, disk in disks.items():
            pool.attach(disk)

    def _open(self, pool: Pool, *, may_init: bool) -> Disk | None:
        try:
            return Disk(pool.settings, readonly=not may_init)
        except PoolUnavailable as error:
            _note(pool, str(error))
            return None

    def _lock(self, pool: Pool, disks: dict[Pool, Disk]) -> None:
        """Lock one disk; one that cannot hold a lock is left out, and the others are served."""
        try:
            disks[pool].lock(self._lock_wait_s)
        except PoolUnavailable as error:
            _note(pool, str(error))
            disks.pop(pool).close()

    def _refuse_twins(self, disks: dict[Pool, Disk]) -> None:
        """Leave out every disk whose id is found twice: one is a copy, and nobody can tell which."""
        by_id: dict[str, list[Pool]] = {}
        for pool, disk in disks.items():
            by_id.setdefault(disk.pool_id, []).append(pool)
        for pool_id, twins in by_id.items():
            if len(twins) > 1:
                paths = " and ".join(pool.settings.path for pool in twins)
                for pool in twins:
                    _note(pool, f"pool id {pool_id} was found at {paths}; one is a copy: keep the right one only")
                    disks.pop(pool).close()

    def load(self) -> None:
        """Read every attached pool, and begin to look for those that are not there."""
        try:
            mounts = list(read_mountinfo())
        except OSError as error:
            raise Unavailable(f"/proc/self/mountinfo cannot be read: {error.strerror}; retry") from error
        for pool in self.pools:
            pool.load(mounts)
            pool.look()
        self.ready = True
        for watcher in self._watchers:
            watcher.start()

    def close(self) -> None:
        """Stop looking, and let all disks go."""
        self._stopping.set()
        deadline = time.monotonic() + _STOP_S
        for watcher in self._watchers:
            if watcher.is_alive():
                watcher.join(max(0.0, deadline - time.monotonic()))
        for pool in self.pools:
            if not pool.detach("the driver is stopping"):
                pool.stop_erasing()

    def _watch(self, pool: Pool) -> None:
        """Look after one pool: its disk may hang, and the others must not wait for it."""
        while not self._stopping.wait(_LOOK_AGAIN_S):
            try:
                self._look_again(pool)
                pool.look()
            except Exception as error:  # noqa: BLE001  the next look must not suffer
                _note(pool, f"it cannot be looked at: {error}")

    def _look_again(self, pool: Pool) -> None:
        """Bring back a pool whose disk came late, went away, or came anew."""
        problem = pool.problem()
        if not problem:
            pool.examine()
            return
        # Only what is mounted is a disk: an empty directory may be where one will be mounted in a moment.
        disk = self._open(pool, may_init=pool.settings.require_mount and not pool.expected_id)
        if disk is None:
            return
        try:
            self._check_wanted(pool, disk)
            if pool.known and not pool.detach(problem):
                disk.close()  # a call is using the old one
                return
            disk.lock(0)
        except (PoolLocked, PoolUnavailable) as error:
            _note(pool, str(error))
            disk.close()
            return
        pool.attach(disk)
        pool.load(list(read_mountinfo()))
        if not pool.problem():
            log.info("pool available", pool=pool.settings.name, pool_id=disk.pool_id)

    def _check_wanted(self, pool: Pool, disk: Disk) -> None:
        """Raise PoolUnavailable for another pool's disk, and for one whose id another pool has as well."""
        if pool.expected_id not in ("", disk.pool_id):
            raise PoolUnavailable(
                f"pool {disk.path}: wanted the disk of pool {pool.expected_id}, found that of {disk.pool_id}; "
                "mount the right one, or restart the driver to serve this one"
            )
        twin = next((other for other in self.pools if other is not pool and _id_at(other) == disk.pool_id), None)
        if twin:
            raise PoolUnavailable(
                f"pool id {disk.pool_id} was found at {pool.settings.path} and {twin.settings.path}; one is a copy: "
                "keep the right one only"
            )

    def named(self, name: str) -> Pool:
        """Give the pool of that name, the first one where the name is ''."""
        if not self.pools:
            raise InvalidRequest("this node has no pool, so no volume can be made on it")
        if not name:
            return self.pools[0]
        for pool in self.pools:
            if pool.settings.name == name:
                return pool
        known = ", ".join(pool.settings.name for pool in self.pools)
        raise InvalidRequest(f"parameter 'pool': this node has no pool {name!r}; it has {known}")

    @contextmanager
    def holding(self, pool_id: str) -> Iterator[Contents]:
        """Hold the contents of the pool with that id; PoolUnavailable where no disk here has it."""
        self.check_ready()
        for pool in self.pools:
            if pool.pool_id == pool_id:
                with pool.use() as contents:
                    yield contents
                return
        raise PoolUnavailable(
            f"pool {pool_id}: no disk of this node has this id; bring its disk back, "
            f"or, if it is gone for good, run 'csi-local-path pools retire {pool_id}'"
        )

    def check_ready(self) -> None:
        """Raise NotReady until the first scan has ended."""
        if not self.ready:
            raise NotReady("the driver is still reading its pools; retry in a moment")

    def in_order(self) -> list[Pool]:
        """Give all pools ordered by id; PoolUnavailable where one was never seen: a list must not be shorter."""
        self.check_ready()
        for pool in self.pools:
            if pool.known is None:
                raise PoolUnavailable(f"pool {pool.settings.name!r} is unavailable: {pool.reason}")
        return sorted(self.pools, key=lambda pool: pool.pool_id)

    def is_gone(self, pool_id: str) -> bool:
        """Tell whether a pool is away and an administrator said that it never comes back."""
        if any(_id_at(pool) == pool_id and not (pool.known and pool.is_away()) for pool in self.pools):
            return False
        for pool in self.pools:
            with suppress(PoolUnavailable, NotReady), pool.use() as contents:
                if contents.disk.is_retired(pool_id):
                    return True
        return False


def _note(pool: Pool, reason: str) -> None:
    """Remember why a pool cannot be used; it is logged once."""
    if pool.reason != reason:
        log.error("pool unavailable", pool=pool.settings.name, reason=reason)
    pool.reason = reason


def _id_at(pool: Pool) -> str:
    """Give the id of a pool's disk, of one that is refused too; '' where there is none."""
    if pool.pool_id:
        return pool.pool_id
    try:
        disk = Disk(pool.settings, readonly=True)
    except PoolUnavailable:
        return ""
    disk.close()
    return disk.pool_id
