"""Which means a volume has, and which one a new volume gets."""

from __future__ import annotations

from collections.abc import Iterable

from provisioner.backends import Backend
from provisioner.backends.directory import DirectoryBackend
from provisioner.backends.subvolume import SubvolumeBackend
from provisioner.disk import Disk
from provisioner.errors import InvalidRequest
from provisioner.parameters import ClassParameters
from provisioner.records import Enforce, Record
from provisioner.settings import PoolSettings


class Backends:
    """The means of one pool, those that hold first."""

    def __init__(self, settings: PoolSettings, disk: Disk) -> None:
        """Look at nothing yet; what a pool can do may change while it is served."""
        self._pool = settings.name
        self._enforce: Enforce = settings.enforce or "besteffort"
        means: tuple[Backend, ...] = (
            SubvolumeBackend(disk, settings.quota),
            DirectoryBackend(disk.tree_fd),
        )
        self._means: dict[str, Backend] = {backend.name: backend for backend in means}

    def of(self, record: Record) -> Backend:
        """Give the means that a volume was made by."""
        return self._means[record.backend]

    def able(self) -> tuple[Backend, ...]:
        """Give the means that a new volume could have now."""
        return tuple(means for means in self._means.values() if not means.refusal())

    def enforce(self, asked: ClassParameters) -> Enforce:
        """Say how a class wants its sizes kept."""
        return asked.enforce or self._enforce

    def choose(self, asked: ClassParameters) -> Backend:
        """Choose for a new volume; InvalidRequest says what the pool lacks and what an administrator can do."""
        allowed = [means for means in self._means.values() if means.holds or self.enforce(asked) == "besteffort"]
        if asked.backend == "auto":
            return self._first(allowed)
        backend = self._means[asked.backend]
        if backend not in allowed:
            raise InvalidRequest(
                f"parameter 'backend': wanted a limit that holds (enforce: required), but {backend.name!r} has none; "
                "choose another one, or say 'enforce: besteffort'"
            )
        if refusal := backend.refusal():
            raise InvalidRequest(f"parameter 'backend': pool {self._pool!r} cannot give {backend.name!r}: {refusal}")
        return backend

    def _first(self, allowed: Iterable[Backend]) -> Backend:
        refusals = []
        for backend in allowed:
            refusal = backend.refusal()
            if not refusal:
                return backend
            refusals.append(f"{backend.name}: {refusal}")
        raise InvalidRequest(
            f"pool {self._pool!r} has no means that holds a volume to its size (enforce: required): "
            f"{'; '.join(refusals)}; or say 'enforce: besteffort'"
        )

    def recover(self, records: Iterable[Record]) -> None:
        """Make every volume's limit what its record says."""
        known = list(records)
        for backend in self._means.values():
            backend.recover(known)

    def tend(self) -> None:
        """Look after limits that tenants may have slipped out of."""
        for backend in self._means.values():
            backend.tend()

    def dismantle(self, entry_fd: int) -> bool:
        """Take apart what an entry of the trash has besides files; False where that is not done yet."""
        return all(backend.dismantle(entry_fd) for backend in self._means.values())
