"""A provisioner on a pool in a temporary folder, and requests to make of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from provisioner.assembly import Provisioner
from provisioner.linux.mount import UMOUNT_NOFOLLOW, umount2
from provisioner.linux.mountinfo import read_mountinfo
from provisioner.model import AccessMode, Capability, CapacityRange, NewVolume, Patient, Publication
from provisioner.settings import PoolSettings, Settings

MIB = 2**20
GIB = 2**30
PATIENT = Patient()
MULTI = Capability(AccessMode.SINGLE_NODE_MULTI_WRITER)
SINGLE = Capability(AccessMode.SINGLE_NODE_SINGLE_WRITER)


def settings_for(folder: Path, **pool: Any) -> Settings:
    """Give the settings of one pool at folder/pool and targets below folder/targets, both made here."""
    path = folder / "pool"
    path.mkdir(exist_ok=True)
    (folder / "targets").mkdir(exist_ok=True)
    keys = {"name": "default", "path": str(path), "init": "if-empty", "reserve": "0", "enforce": "besteffort"} | pool
    return Settings(
        pools=[PoolSettings(**keys)],
        target_roots=[str(folder / "targets")],
        lock_wait_seconds=0,
        measure_interval_seconds=3600,
    )


@contextmanager
def running(settings: Settings) -> Iterator[Provisioner]:
    """Run a provisioner; at the end it is stopped and whatever is mounted at its targets is taken away."""
    provisioner = Provisioner(settings)
    provisioner.lock()
    provisioner.start()
    try:
        yield provisioner
    finally:
        provisioner.stop()


def unmount_below(folder: Path) -> None:
    """Unmount everything below a folder, the topmost first."""
    mounts = [mount.mount_point for mount in read_mountinfo() if mount.mount_point.startswith(f"{folder}/")]
    for mount_point in reversed(mounts):
        umount2(mount_point, UMOUNT_NOFOLLOW)


def wanted(name: str, size: int = MIB, *, limit: int = 0, **parameters: str) -> NewVolume:
    """Give a request for a volume."""
    return NewVolume(name, CapacityRange(size, limit), (MULTI,), parameters)


def at(
    volume_id: str,
    target: Path | str,
    capability: Capability = MULTI,
    *,
    readonly: bool = False,
    staged: str = "/staged",
) -> Publication:
    """Give a request for a publication."""
    return Publication(volume_id, str(target), staged, capability, readonly)
