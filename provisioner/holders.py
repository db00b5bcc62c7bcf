"""Who keeps a mount busy: for the sentence that an administrator reads when an unmount says EBUSY."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from provisioner.linux.mountinfo import MountInfo, read_mountinfo
from provisioner.linux.statx import AT_NO_AUTOMOUNT, statx

How = Literal["cwd", "root", "open file", "mapped", "mount"]

_AT_STATX_DONT_SYNC = 0x4000  # no question to a file server that may be gone


@dataclass(frozen=True, slots=True)
class Holder:
    """A process and how it holds the mount; for a mount inside, pid is 0 and name its mount point."""

    pid: int
    name: str
    how: How


def holders_of(mnt_id: int, dev: int, *, limit: int = 10, patience_s: float = 2.0) -> list[Holder]:
    """Find at most `limit` holders of the mount `mnt_id` (as in mountinfo) of filesystem `dev`.

    Those of the mount itself come first. Where there are none, processes in other mount namespaces that
    use the same directory are given: an unmount that propagates to them is as busy. Never raises OSError;
    what cannot be seen in `patience_s` seconds, or in this PID namespace, is left out.
    """
    search = _Search(mnt_id, dev)
    found = search.mounts_inside()[:limit]
    elsewhere: list[Holder] = []
    ends = time.monotonic() + patience_s
    for pid in _pids():
        if len(found) >= limit or time.monotonic() > ends:
            break
        if how := search.how(pid, {mnt_id}):
            found.append(Holder(pid, _name(pid), how))
        elif len(elsewhere) < limit and (how := search.how(pid, search.twins(pid))):
            elsewhere.append(Holder(pid, _name(pid), how))
    return found or elsewhere


def describe(holders: list[Holder]) -> str:
    """Say it in a sentence's part: 'held by process 17 (nginx, cwd), by a mount at /x'."""
    if not holders:
        return "held by nothing that can be seen from here (another PID namespace, a loop device, a swap file)"
    return "held by " + ", by ".join(
        f"a mount at {holder.name}" if holder.how == "mount" else f"process {holder.pid} ({holder.name}, {holder.how})"
        for holder in holders
    )


class _Search:
    """The mount in question, and what it is called in each mount namespace."""

    def __init__(self, mnt_id: int, dev: int) -> None:
        self._mnt_id = mnt_id
        self._mounts = list(_mounts_of("self"))
        ours = next((mount for mount in self._mounts if mount.mnt_id == mnt_id), None)
        self._root = ours.root if ours else None
        # btrfs: maps and mountinfo tell the filesystem's number, stat(2) a subvolume's own.
        self._dev = ours.dev if ours else dev
        self._twins: dict[int, set[int]] = {_namespace("self"): set()}

    def mounts_inside(self) -> list[Holder]:
        """Give the mounts that stand on this one."""
        return [Holder(0, mount.mount_point, "mount") for mount in self._mounts if mount.parent_id == self._mnt_id]

    def twins(self, pid: int) -> set[int]:
        """Give the ids of mounts that show the same directory in the other mount namespace of a process."""
        namespace = _namespace(pid)
        if namespace not in self._twins:
            self._twins[namespace] = {
                mount.mnt_id for mount in _mounts_of(pid) if (mount.dev, mount.root) == (self._dev, self._root)
            }
        return self._twins[namespace]

    def how(self, pid: int, mnt_ids: set[int]) -> How | None:
        """Say how a process holds one of some mounts; None where it does not, or is gone."""
        if not mnt_ids:
            return None
        if _mnt_id_at(f"/proc/{pid}/cwd") in mnt_ids:
            return "cwd"
        if _mnt_id_at(f"/proc/{pid}/root") in mnt_ids:
            return "root"
        if any(mnt_id in mnt_ids for mnt_id in _open_files(pid)):
            return "open file"
        if any(_mnt_id_at(path) in mnt_ids for path in _mapped_files(pid, self._dev)):
            return "mapped"
        return None


def _mounts_of(pid: int | str) -> Iterator[MountInfo]:
    with suppress(OSError):
        yield from read_mountinfo(pid)


def _namespace(pid: int | str) -> int:
    """Give the number of a process's mount namespace; 0, which none has, where it is gone."""
    try:
        return os.stat(f"/proc/{pid}/ns/mnt").st_ino
    except OSError:
        return 0


def _mnt_id_at(path: str) -> int:
    """Give the id of the mount that a link of /proc leads to; -1 where it leads nowhere."""
    try:
        return statx(path, flags=AT_NO_AUTOMOUNT | _AT_STATX_DONT_SYNC).mnt_id
    except OSError:
        return -1


def _open_files(pid: int) -> Iterator[int]:
    """Give the mount of each open file of a process (fdinfo, proc(5)); directories are among them."""
    with suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fdinfo"):
            with suppress(OSError), open(f"/proc/{pid}/fdinfo/{number}", "rb") as lines:
                for line in lines:
                    if line.startswith(b"mnt_id:"):
                        yield int(line[7:])
                        break


def _mapped_files(pid: int, dev: int) -> Iterator[str]:
    """Give a path to each file of filesystem `dev` that a process has mapped."""
    number = f"{os.major(dev):02x}:{os.minor(dev):02x}".encode()
    with suppress(OSError), open(f"/proc/{pid}/maps", "rb") as lines:
        for line in lines:
            place, _, _, found, *_ = line.split(maxsplit=5)
            if found == number:
                first, _, last = place.partition(b"-")
                yield f"/proc/{pid}/map_files/{int(first, 16):x}-{int(last, 16):x}"


def _pids() -> list[int]:
    import psutil  # noqa: PLC0415  megabytes, for a message that most processes never need

    return psutil.pids()


def _name(pid: int) -> str:
    import psutil  # noqa: PLC0415  as above

    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "gone"
