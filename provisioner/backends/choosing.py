"""Which means a volume has, and which one a new volume gets."""

from __future__ import annotations

from collections.abc import Iterable

from provisioner.backends import IMAGE_NAME, Backend, Content
from provisioner.backends.directory import DirectoryBackend
from provisioner.backends.image import ImageBackend
from provisioner.backends.quota import QuotaBackend
from provisioner.backends.subvolume import SubvolumeBackend
from provisioner.disk import Disk
from provisioner.errors import InvalidRequest
from provisioner.linux.statx import Statx
from provisioner.model import Capability
from provisioner.parameters import ClassParameters
from provisioner.records import Enforce, Record
from provisioner.settings import PoolSettings


def content_of(asked: ClassParameters, capabilities: Iterable[Capability]) -> Content:
    """Say what a class and the ways of use want a volume to hold; InvalidRequest where they disagree."""
    capabilities = list(capabilities)
    block = {capability.block for capability in capabilities}
    if len(block) > 1:
        raise InvalidRequest("volume_capabilities: wanted raw block or a filesystem, found both")
    fs_types = {capability.fs_type for capability in capabilities} | {asked.fs_type}
    fs_types.discard("")
    if len(fs_types) > 1:
        raise InvalidRequest(f"fs_type: wanted one, found {', '.join(sorted(fs_types))} (see parameter 'fsType' too)")
    return Content(
        block=block == {True},
        fs_type="" if block == {True} else "".join(fs_types),
        thin=asked.thin,
        inodes=asked.inodes,
    )


class Backends:
    """The means of one pool, those that hold first."""

    def __init__(self, settings: PoolSettings, disk: Disk) -> None:
        """Look at nothing yet; what a pool can do may change while it is served."""
        self._pool = settings.name
        self._enforce: Enforce = settings.enforce or "required"
        self._image = image = ImageBackend(disk)
        means: tuple[Backend, ...] = (
            QuotaBackend(disk),
            SubvolumeBackend(disk, settings.quota),
            image,
            DirectoryBackend(disk),
        )
        self._means: dict[str, Backend] = {backend.name: backend for backend in means}

    def of(self, record: Record) -> Backend:
        """Give the means that a volume was made by."""
        return self._means[record.backend]

    def able(self) -> tuple[Backend, ...]:
        """Give the means that a new volume without special wishes could have now."""
        return tuple(means for means in self._means.values() if not means.refusal(Content()))

    def enforce(self, asked: ClassParameters) -> Enforce:
        """Say how a class wants its sizes kept."""
        return asked.enforce or self._enforce

    def choose(self, asked: ClassParameters, content: Content) -> Backend:
        """Choose for a new volume; InvalidRequest says what the pool lacks and what an administrator can do."""
        if asked.backend != "auto":
            return self._named(self._means[asked.backend], asked, content)
        refusals = []
        for backend in self._in_order(asked):
            refusal = backend.refusal(content)
            if not refusal:
                return backend
            refusals.append(f"{backend.name}: {refusal}")
        raise InvalidRequest(f"pool {self._pool!r} cannot give such a volume: {'; '.join(refusals)}")

    def _named(self, backend: Backend, asked: ClassParameters, content: Content) -> Backend:
        if self.enforce(asked) == "required" and not backend.holds:
            raise InvalidRequest(
                f"parameter 'backend': wanted a limit that holds (enforce: required), but {backend.name!r} has none; "
                "choose another one, or say 'enforce: besteffort'"
            )
        if refusal := backend.refusal(content):
            raise InvalidRequest(f"parameter 'backend': pool {self._pool!r} cannot give {backend.name!r}: {refusal}")
        return backend

    def _in_order(self, asked: ClassParameters) -> list[Backend]:
        """Give what may be taken, best first: where no limit is required, a directory rather than an image."""
        if self.enforce(asked) == "required":
            return [backend for backend in self._means.values() if backend.holds]
        return sorted(self._means.values(), key=lambda backend: backend.name == IMAGE_NAME)

    def shows(self, record: Record, found: Statx) -> bool:
        """Tell whether what was found at a path is a volume, mounted there."""
        return self.of(record).shows(record, found)

    def recover(self, records: Iterable[Record]) -> None:
        """Make every volume's limit what its record says."""
        known = list(records)
        for backend in self._means.values():
            backend.recover(known)

    def tend(self) -> None:
        """Look after limits that tenants may have slipped out of."""
        for backend in self._means.values():
            backend.tend()

    def close(self) -> None:
        """Let go of what is held open."""
        self._image.close()

    def dismantle(self, entry_fd: int) -> bool:
        """Take apart what an entry of the trash has besides files; False where that is not done yet."""
        return all(backend.dismantle(entry_fd) for backend in self._means.values())
