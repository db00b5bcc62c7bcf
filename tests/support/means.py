"""The means that hold a volume to its size, each on a filesystem of its own, for suites that hold for all of them."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from provisioner.assembly import Provisioner
from provisioner.model import Capability, NewVolume, Volume
from provisioner.settings import Settings
from tests.support.filesystems import MIB, loop_filesystem
from tests.support.provisioned import MULTI, PATIENT, at, running, settings_for, unmount_below, wanted

POOL_BYTES = 512 * MIB


@dataclass(frozen=True)
class Means:
    """How a pool is prepared, what a class says, and how a write past the limit fails."""

    name: str
    kind: str
    refused: int = errno.EDQUOT
    options: str = ""
    mkfs_options: tuple[str, ...] = ()
    pool: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def filesystem(self, tmp_path: Path) -> Iterator[Path]:
        """Mount the filesystem at tmp_path/KIND."""
        with loop_filesystem(
            self.kind, tmp_path, POOL_BYTES, mkfs_options=self.mkfs_options, options=self.options
        ) as found:
            yield found.path

    def settings(self, tmp_path: Path, **keys: Any) -> Settings:
        """Give the settings of a pool there."""
        return settings_for(tmp_path, path=str(tmp_path / self.kind), **(self.pool | keys))

    def wanted(self, name: str, size: int, **parameters: str) -> NewVolume:
        """Ask for a volume that everybody may write to."""
        asked = {"mode": "0777", "enforce": "required"} | self.parameters | parameters
        return replace(wanted(name, size), parameters=asked)


# commit=1: a destroyed subvolume is freed after the commit, which would else come every 30 seconds.
SUBVOLUME = Means("subvolume", "btrfs", options="commit=1", pool={"quota": "enable"})
SIMPLE = Means("subvolume with simple quotas", "btrfs", options="commit=1", pool={"quota": "simple"})
MEANS = (SUBVOLUME, SIMPLE)


@dataclass(frozen=True, slots=True)
class Served:
    """A pool at work."""

    means: Means
    settings: Settings
    provisioner: Provisioner
    targets: Path

    @property
    def control(self) -> Path:
        """The pool's own folder."""
        return Path(self.settings.pools[0].path) / ".csi-local-path"

    def create(self, name: str, size: int, **parameters: str) -> Volume:
        """Create a volume."""
        return self.provisioner.volumes.create(self.means.wanted(name, size, **parameters), PATIENT)

    def publish(self, volume: Volume, capability: Capability = MULTI) -> Path:
        """Stage and publish a volume at a target named as it is."""
        staged, target = self.targets / f"{volume.name}.staged", self.targets / volume.name
        staged.mkdir(exist_ok=True)
        self.provisioner.publishing.stage(volume.volume_id, str(staged), capability)
        self.provisioner.publishing.publish(at(volume.volume_id, target, capability, staged=str(staged)), PATIENT)
        return target

    def take_away(self, volume: Volume) -> None:
        """Undo `publish`, and delete the volume."""
        self.provisioner.publishing.unpublish(volume.volume_id, str(self.targets / volume.name), PATIENT)
        self.provisioner.publishing.unstage(volume.volume_id, str(self.targets / f"{volume.name}.staged"))
        self.provisioner.volumes.delete(volume.volume_id, PATIENT)


@contextmanager
def serving(means: Means, tmp_path: Path, **keys: Any) -> Iterator[Served]:
    """Serve a pool on a filesystem that is there; at the end nothing is mounted at its targets."""
    settings = means.settings(tmp_path, **keys)
    with running(settings) as provisioner:
        yield Served(means, settings, provisioner, tmp_path / "targets")
    unmount_below(tmp_path / "targets")
