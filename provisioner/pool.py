"""One pool at work: its disk, the index of its volumes, its ledger, its trash."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice

import structlog
from sortedcontainers import SortedDict

from provisioner import records
from provisioner.backends import Backend, Occupied
from provisioner.backends.choosing import Backends
from provisioner.backends.directory import shows_data
from provisioner.capabilities import Nature
from provisioner.capacity import Ledger
from provisioner.disk import Disk, Space
from provisioner.errors import NotDurable, NotReady, PoolUnavailable, VolumeNotFound, VolumeQuarantined
from provisioner.linux.mountinfo import MountInfo
from provisioner.linux.statx import Statx
from provisioner.names import identify, is_folder
from provisioner.pace import Paced
from provisioner.pods import PodVolumes
from provisioner.publications import Publications
from provisioner.records import Broken, Record
from provisioner.settings import PoolSettings
from provisioner.trash import Trash
from provisioner.usage import Usage
from provisioner.waits import MOST_CALLS, Waits

log = structlog.get_logger(__name__)


class Contents:
    """What lies in a pool's disk while it is attached; replaced whole when the disk comes anew."""

    def __init__(self, settings: PoolSettings, disk: Disk) -> None:
        """Take over a locked disk; nothing is read yet."""
        self.settings = settings
        self.disk = disk
        self.usage = Usage(disk.control_fd)
        self.ledger = Ledger(settings, disk.space, self.foreign_bytes)
        self.backends = Backends(settings, disk)
        self.trash = Trash(
            disk.trash_fd,
            self.ledger.erased,
            lambda: disk.settle("trash", "volumes"),
            dismantle=self.backends.dismantle,
        )
        self.publications = Publications(disk, self.shows)
        self.pods = PodVolumes()
        self.quarantined: dict[str, str] = {}
        self._assumed_foreign_bytes = 0
        self._volumes: SortedDict[str, Record] = SortedDict()
        self._guard = threading.Lock()

    def load(self, mounts: list[MountInfo]) -> None:
        """Sweep what a crash left, then read everything there is."""
        self._sweep()
        found: list[tuple[str, Record]] = []
        for item in records.scan(self.disk.volumes_fd, self.disk.pool_id):
            if isinstance(item, Broken):
                self.quarantined[item.folder] = item.reason
                log.error("volume quarantined", pool=self.disk.path, folder=item.folder, reason=item.reason)
            else:
                found.append((item.folder, item))
                self.ledger.promise(item.capacity_bytes)
                self.pods.note(item)
        self._volumes.update(found)
        self.backends.recover(record for _, record in found)
        self.publications.recover(mounts)
        for _, record in found:
            if record.block:
                self.backends.of(record).release(record, self.publications.alive(record.folder))
        self.usage.load()
        self._look_again()
        self._assumed_foreign_bytes = max(0, self.disk.space().used_bytes - self.ledger.held_bytes)

    def _look_again(self) -> None:
        """Tell no more of lost limits that are set again now; the measurer comes to them only after all figures."""
        lost = self.usage.lost_folders()
        for folder in lost:
            with suppress(OSError):  # its health tells more
                self.usage.put_lost(folder, self.illness(folder))
        if lost:
            self.usage.save()

    def foreign_bytes(self) -> int:
        """Give what strangers use; until that is measured, what the volumes that were found cannot explain."""
        measured = self.usage.foreign_bytes
        return self._assumed_foreign_bytes if measured is None else measured

    def _sweep(self) -> None:
        """Send what was being built to the trash, and count what lies there.

        An earlier process may have been cut short before a sync: nothing may be erased that a power cut
        could still bring back, nor a retry be told OK for what one could still take away.
        """
        self.disk.settle("control", "trash", "volumes")
        for name in os.listdir(self.disk.staging_fd):
            try:
                self.trash.take(self.disk.staging_fd, name)
            except OSError as error:
                log.warning("staging not swept", pool=self.disk.path, entry=name, error=str(error))
        for entry in self.trash.entries():
            try:
                held = records.read(self.disk.trash_fd, entry).capacity_bytes
            except ValueError:
                continue  # never a volume, or erased but for its folder
            self.ledger.hold(entry, held)
        self.trash.wake()

    def find(self, folder: str) -> Record | None:
        """Give the record of a volume; VolumeQuarantined where it cannot be trusted."""
        record: Record | None = self._volumes.get(folder)
        if record is None and folder in self.quarantined:
            raise VolumeQuarantined(
                f"volume {self.disk.pool_id}.{folder}: its record is broken ({self.quarantined[folder]}); "
                f"its data is left alone; mend or move {self.disk.path}/.csi-local-path/volumes/{folder}, then restart"
            )
        return record

    def known(self, folder: str) -> Record | None:
        """Give the record of a volume, None for one that is not here or cannot be trusted."""
        record: Record | None = self._volumes.get(folder)
        return record

    def put(self, folder: str, record: Record) -> None:
        """Show a volume, or its new record."""
        with self._guard:
            self._volumes[folder] = record
        self.pods.note(record)

    def drop(self, folder: str) -> None:
        """Show a volume no more."""
        with self._guard:
            self._volumes.pop(folder, None)
        self.pods.forget(folder)

    def after(self, folder: str, count: int) -> list[Record]:
        """List at most `count` volumes that follow `folder` in order; '' begins at the first."""
        with self._guard:
            keys = list(islice(self._volumes.irange(minimum=folder, inclusive=(False, True)), count))
            return [self._volumes[key] for key in keys]

    def after_with_broken(self, folder: str, count: int) -> list[str]:
        """Name at most `count` folders that follow, those in quarantine too."""
        with self._guard:
            sound = list(islice(self._volumes.irange(minimum=folder, inclusive=(False, True)), count))
        broken = [name for name in self.quarantined if name > folder and is_folder(name)]
        return sorted(sound + broken)[:count]

    @property
    def volume_count(self) -> int:
        """How many volumes there are, without those in quarantine."""
        return len(self._volumes)

    def occupied(self, folder: str) -> Occupied | None:
        """Count what a volume takes; None where only a walk over its files could."""
        record = self.known(folder)
        return self.backends.of(record).occupied(record) if record else None

    def illness(self, folder: str) -> str:
        """Say what is wrong with a volume's limit, or '' where it holds."""
        record = self.known(folder)
        return self.backends.of(record).illness(record) if record else ""

    def escaped(self, folder: str, pace: Paced) -> str:
        """Say what of a volume slipped out of its limit; a walk over its files, for background work only."""
        record = self.known(folder)
        return self.backends.of(record).escaped(record, pace) if record else ""

    def nature(self, record: Record) -> Nature:
        """Say what decides how a volume can be used."""
        own = has_own_filesystem(record)
        fs_type = record.fs_type or self.disk.fs_type
        return Nature(record.block, fs_type, own_filesystem=own, preallocated=own and not record.thin)

    def shows(self, folder: str, found: Statx) -> bool:
        """Tell whether what was found at a path is a volume, mounted there."""
        record = self.known(folder)
        if record is None:  # broken, or gone
            return shows_data(self.disk.volumes_fd, folder, found)
        return self.backends.of(record).shows(record, found)

    def folders(self) -> list[str]:
        """Name all volumes; for background work only."""
        with self._guard:
            return list(self._volumes)

    def close(self) -> None:
        """Stop the eraser and let the disk go."""
        self.trash.stop()
        self.backends.close()
        self.disk.close()


def has_own_filesystem(record: Record) -> bool:
    """Tell whether a volume's filesystem is its own, and not its pool's."""
    return record.backend == "image" and not record.block


def require(contents: Contents, volume_id: str) -> Record:
    """Give the record of a volume; VolumeNotFound where there is none."""
    record = contents.find(identify(volume_id).folder)
    if record is None:
        raise VolumeNotFound(f"volume {volume_id}: pool {contents.settings.name!r} has none of this name")
    return record


class Pool:
    """One configured pool, whether its disk is there or not."""

    def __init__(self, settings: PoolSettings) -> None:
        """Know the settings; `attach` and `load` bring the disk."""
        self.settings = settings
        self.reason = "its disk was not looked at"
        self.expected_id = ""
        self.seen_space: Space | None = None  # at the last `look`; None: unavailable
        self.seen_means: tuple[Backend, ...] = ()  # that new volumes could have then
        self.seen_at = 0.0
        self._contents: Contents | None = None
        self._loaded = False
        self._users = 0
        self._waits = Waits()
        self._guard = threading.Lock()

    @property
    def known(self) -> Contents | None:
        """What was last read of the disk, whether it is still there or not."""
        return self._contents

    @property
    def pool_id(self) -> str:
        """Id of the disk that is attached; '' where none is."""
        contents = self._contents
        return contents.disk.pool_id if contents else ""

    def attach(self, disk: Disk) -> None:
        """Take over a locked disk, and from now on expect no other; one that fails at once is let go."""
        try:
            contents = Contents(self.settings, disk)
        except OSError as error:
            disk.close()
            self.reason = f"its disk cannot be used: {error.strerror}"
            return
        self.expected_id = disk.pool_id
        with self._guard:
            self._contents, self._loaded, self.reason = contents, False, ""

    def load(self, mounts: list[MountInfo]) -> None:
        """Read the attached disk and start its eraser."""
        if self._contents and not self._loaded:
            try:
                self._contents.load(mounts)
            except (OSError, NotDurable) as error:
                self.detach(f"its volumes cannot be read: {error}")
                return
            self._contents.trash.start()
            self._loaded = True

    def detach(self, reason: str) -> bool:
        """Let the disk go, unless a call is using it."""
        with self._guard:
            if self._users:
                return False
            contents, self._contents, self._loaded, self.reason = self._contents, None, False, reason
        if contents:
            contents.close()
        return True

    @contextmanager
    def use(self) -> Iterator[Contents]:
        """Hold the pool's contents for a call; PoolUnavailable where the disk is not there, or answers nobody."""
        if hang_s := self._waits.hang_s():  # one more would only wait beside them
            raise PoolUnavailable(
                f"pool {self.settings.name!r}: its disk answers nobody: {MOST_CALLS} calls have waited for it, the "
                f"first for {hang_s:.0f} s; look at the disk and the kernel's log"
            )
        with self._waits.call():
            contents = self._enter()
            try:
                yield contents
            except (PoolUnavailable, NotDurable) as error:
                contents.disk.illness = str(error)
                raise
            finally:
                with self._guard:
                    self._users -= 1

    def _enter(self) -> Contents:
        known = self._contents
        if known:
            known.disk.check()  # before it is counted: calls that fail must not keep the disk from being let go
        with self._guard:
            contents = self._contents
            if contents is None:
                raise PoolUnavailable(f"pool {self.settings.name!r} is unavailable: {self.reason}")
            if contents is not known or not self._loaded:
                raise NotReady(f"pool {self.settings.name!r} is still being read; retry in a moment")
            self._users += 1
        return contents

    def stop_erasing(self) -> None:
        """End the eraser of a disk that a call does not let go: its thread would keep the process alive."""
        contents = self._contents
        if contents:
            contents.trash.stop()

    def is_away(self) -> bool:
        """Tell whether the disk is not there; one that is still being read is."""
        try:
            with self.use():
                return False
        except NotReady:
            return False
        except PoolUnavailable:
            return True

    def examine(self) -> None:
        """See whether a disk that let a call down is well again, and whether limits still hold."""
        with suppress(PoolUnavailable, NotReady), self.use() as contents:
            contents.backends.tend()
            if contents.disk.illness:
                contents.disk.probe()

    def look(self) -> None:
        """Note how the disk is, for those who must not wait for one that answers nobody."""
        space: Space | None = None
        means: tuple[Backend, ...] = ()
        with suppress(PoolUnavailable, NotReady, OSError), self.use() as contents:
            space, means = contents.disk.space(), contents.backends.able()
        self.seen_space, self.seen_means, self.seen_at = space, means, time.time()

    def problem(self) -> str:
        """Say why the pool cannot be used, or '' where it can."""
        try:
            with self.use():
                return ""
        except (PoolUnavailable, NotReady) as error:
            return str(error)
