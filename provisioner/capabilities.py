"""What a volume of this driver can be used as, and which mount flags a bind mount can honour."""

from __future__ import annotations

import os
from dataclasses import dataclass

from provisioner.errors import InvalidRequest
from provisioner.linux.mount import (
    MOUNT_ATTR__ATIME,
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_RELATIME,
    MOUNT_ATTR_STRICTATIME,
)
from provisioner.model import AccessMode, Capability

_SINGLE_NODE = {
    AccessMode.SINGLE_NODE_WRITER,
    AccessMode.SINGLE_NODE_READER_ONLY,
    AccessMode.SINGLE_NODE_SINGLE_WRITER,
    AccessMode.SINGLE_NODE_MULTI_WRITER,
}


@dataclass(frozen=True, slots=True)
class Nature:
    """What of a volume decides how it can be used. own_filesystem: mount flags of filesystems can be honoured.

    preallocated: the pool's room for all of it is its own.
    """

    block: bool
    fs_type: str
    own_filesystem: bool
    preallocated: bool = False


@dataclass(frozen=True, slots=True)
class MountAttributes:
    """Attributes to set and clear on a mount, as mount_setattr(2) takes them."""

    attr_set: int = 0
    attr_clr: int = 0


# mount(8), "Filesystem-independent mount options"; only those that belong to a mount, not to a filesystem.
_FLAGS = {
    "ro": MountAttributes(MOUNT_ATTR_RDONLY, 0),
    "rw": MountAttributes(0, 0),  # never lifts a read-only publication
    "nosuid": MountAttributes(MOUNT_ATTR_NOSUID, 0),
    "suid": MountAttributes(0, MOUNT_ATTR_NOSUID),
    "nodev": MountAttributes(MOUNT_ATTR_NODEV, 0),
    "dev": MountAttributes(0, MOUNT_ATTR_NODEV),
    "noexec": MountAttributes(MOUNT_ATTR_NOEXEC, 0),
    "exec": MountAttributes(0, MOUNT_ATTR_NOEXEC),
    "noatime": MountAttributes(MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME),
    "relatime": MountAttributes(MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME),
    "strictatime": MountAttributes(MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME),
    "nodiratime": MountAttributes(MOUNT_ATTR_NODIRATIME, 0),
    "diratime": MountAttributes(0, MOUNT_ATTR_NODIRATIME),
    "nosymfollow": MountAttributes(MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": MountAttributes(0, MOUNT_ATTR_NOSYMFOLLOW),
}

# statvfs(3) tells a mount's attributes with other bits than mount_setattr(2) takes.
_ST_NOSYMFOLLOW, _ST_RELATIME = 0x2000, 0x1000
_SEEN = (
    (os.ST_RDONLY, MOUNT_ATTR_RDONLY),
    (os.ST_NOSUID, MOUNT_ATTR_NOSUID),
    (os.ST_NODEV, MOUNT_ATTR_NODEV),
    (os.ST_NOEXEC, MOUNT_ATTR_NOEXEC),
    (os.ST_NODIRATIME, MOUNT_ATTR_NODIRATIME),
    (_ST_NOSYMFOLLOW, MOUNT_ATTR_NOSYMFOLLOW),
)


def refusal(capability: Capability, nature: Nature) -> str:
    """Say why a volume cannot be used so, or '' where it can."""
    if capability.block and not nature.block:
        return "wanted a raw block volume, but this one has a filesystem; ask for a mount volume"
    if nature.block and not capability.block:
        return "wanted a filesystem, but this is a raw block volume; ask for a block volume"
    if capability.access_mode not in _SINGLE_NODE:
        return (
            f"access mode {capability.access_mode.name}: a volume lives on one node's disk; "
            "ask for one of the SINGLE_NODE modes (ReadWriteOnce, ReadWriteOncePod)"
        )
    return ""


def check_mount(capability: Capability, nature: Nature) -> None:
    """Raise InvalidRequest for a filesystem or mount flags that the volume cannot give."""
    if capability.fs_type not in ("", nature.fs_type):
        raise InvalidRequest(
            f"fs_type {capability.fs_type!r}: the volume's filesystem is {nature.fs_type!r}; leave fs_type empty"
        )
    if capability.volume_mount_group:
        raise InvalidRequest(
            "volume_mount_group: this driver lets the orchestrator set the group (fsGroup); leave it empty"
        )
    if not nature.own_filesystem:
        attributes(capability, readonly=False)
    if nature.preallocated and "discard" in _flags(capability):
        raise InvalidRequest(
            "mount flag 'discard': it would give room of a preallocated image back to the pool, where others take it; "
            "leave it out, or take a class with 'thin: true'"
        )


def check(capability: Capability, nature: Nature) -> None:
    """Raise InvalidRequest where a volume could not be used so."""
    reason = refusal(capability, nature)
    if reason:
        raise InvalidRequest(reason)
    check_mount(capability, nature)


def _flags(capability: Capability) -> list[str]:
    return ",".join(capability.mount_flags).split(",") if capability.mount_flags else []


def filesystem_options(capability: Capability) -> str:
    """Give the mount flags that belong to a filesystem, as mount(2) takes them; for one of the volume's own."""
    return ",".join(flag for flag in _flags(capability) if flag not in _FLAGS)


def is_readonly(capability: Capability, *, readonly: bool) -> bool:
    """Tell whether a publication must refuse writes."""
    return readonly or capability.access_mode is AccessMode.SINGLE_NODE_READER_ONLY or "ro" in capability.mount_flags


def attributes(capability: Capability, *, readonly: bool, own_filesystem: bool = False) -> MountAttributes:
    """Give the attributes of a publication's mount; later flags win, as in mount(8).

    InvalidRequest names a flag that a bind mount cannot honour; those of a volume's own filesystem were honoured when
    it was staged.
    """
    attr_set = attr_clr = 0
    for flag in _flags(capability):
        if flag not in _FLAGS:
            if own_filesystem:
                continue
            raise InvalidRequest(
                f"mount flag {flag!r}: a bind mount cannot honour it; those it can are {', '.join(_FLAGS)}"
            )
        asked = _FLAGS[flag]
        attr_set = attr_set & ~asked.attr_clr | asked.attr_set
        attr_clr = attr_clr & ~asked.attr_set | asked.attr_clr
    if is_readonly(capability, readonly=readonly):
        attr_set |= MOUNT_ATTR_RDONLY
    return MountAttributes(attr_set, attr_clr)


def seen(statvfs_flags: int) -> int:
    """Translate f_flag of statvfs(3) to the bits of mount_setattr(2)."""
    found = sum(attribute for bit, attribute in _SEEN if statvfs_flags & bit)
    if statvfs_flags & os.ST_NOATIME:
        return found | MOUNT_ATTR_NOATIME
    return found if statvfs_flags & _ST_RELATIME else found | MOUNT_ATTR_STRICTATIME


def expected(source: int, wanted: MountAttributes) -> int:
    """Give the attributes of a clone of a mount with attributes `source`, after `wanted` was applied."""
    return source & ~wanted.attr_clr | wanted.attr_set
