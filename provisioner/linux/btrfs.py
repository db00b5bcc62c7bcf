"""btrfs's requests for subvolumes and quota groups (linux/btrfs.h, linux/btrfs_tree.h).

Every function takes a descriptor of a file or directory on the filesystem, not of O_PATH. A quota group is named
by a number that `qgroup_id` makes; that of a subvolume is its own id, at level 0.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from provisioner.linux.ioctl import io, ioctl, ioctl_number, ior, iow, iowr
from provisioner.linux.libc import function

_MAGIC = 0x94
_NAME_MAX = 255  # btrfs keeps no longer ones, whatever the structure has room for

_VOL_ARGS = struct.Struct("=q4088s")  # fd, name
_VOL_ARGS_V2 = struct.Struct("=qQQ32xQ4032x")  # fd, transid, flags, subvolid in the place of the name
_INO_LOOKUP_ARGS = struct.Struct("=QQ4080s")  # treeid, objectid, name
_SEARCH_KEY = struct.Struct("=QQQQQQQIIII32x")  # tree, objectids, offsets, transids, types, nr_items, unused
_SEARCH_SIZE = struct.Struct("=Q")
_SEARCH_HEADER = struct.Struct("=QQQII")  # transid, objectid, offset, type, len
_QUOTA_CTL_ARGS = struct.Struct("=QQ")  # cmd, status
_QGROUP_ASSIGN_ARGS = struct.Struct("=QQQ")  # assign, src, dst
_QGROUP_CREATE_ARGS = struct.Struct("=QQ")  # create, qgroupid
_QGROUP_LIMIT_ARGS = struct.Struct("=QQQQQQ")  # qgroupid, flags, max_rfer, max_excl, rsv_rfer, rsv_excl
_SUBVOL_FLAGS = struct.Struct("=Q")
_QUOTA_RESCAN_ARGS = struct.Struct("=QQ48x")  # flags, progress

BTRFS_IOC_SYNC = io(_MAGIC, 8)
BTRFS_IOC_SUBVOL_CREATE = iow(_MAGIC, 14, _VOL_ARGS.size)
BTRFS_IOC_SNAP_DESTROY = iow(_MAGIC, 15, _VOL_ARGS.size)
BTRFS_IOC_TREE_SEARCH_V2 = iowr(_MAGIC, 17, _SEARCH_KEY.size + _SEARCH_SIZE.size)
BTRFS_IOC_INO_LOOKUP = iowr(_MAGIC, 18, _INO_LOOKUP_ARGS.size)
BTRFS_IOC_SUBVOL_GETFLAGS = ior(_MAGIC, 25, _SUBVOL_FLAGS.size)
BTRFS_IOC_SUBVOL_SETFLAGS = iow(_MAGIC, 26, _SUBVOL_FLAGS.size)
BTRFS_IOC_QUOTA_CTL = iowr(_MAGIC, 40, _QUOTA_CTL_ARGS.size)
BTRFS_IOC_QGROUP_ASSIGN = iow(_MAGIC, 41, _QGROUP_ASSIGN_ARGS.size)
BTRFS_IOC_QGROUP_CREATE = iow(_MAGIC, 42, _QGROUP_CREATE_ARGS.size)
BTRFS_IOC_QGROUP_LIMIT = ior(_MAGIC, 43, _QGROUP_LIMIT_ARGS.size)
BTRFS_IOC_QUOTA_RESCAN = iow(_MAGIC, 44, _QUOTA_RESCAN_ARGS.size)
BTRFS_IOC_QUOTA_RESCAN_WAIT = io(_MAGIC, 46)
BTRFS_IOC_SNAP_DESTROY_V2 = iow(_MAGIC, 63, _VOL_ARGS_V2.size)

BTRFS_QUOTA_CTL_ENABLE = 1
BTRFS_QUOTA_CTL_DISABLE = 2
BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA = 4  # Linux 6.7

BTRFS_QGROUP_STATUS_FLAG_ON = 0x1
BTRFS_QGROUP_STATUS_FLAG_RESCAN = 0x2
BTRFS_QGROUP_STATUS_FLAG_INCONSISTENT = 0x4  # figures may be wrong until a rescan
BTRFS_QGROUP_STATUS_FLAG_SIMPLE_MODE = 0x8

_BTRFS_LAST_FREE_OBJECTID = 2**64 - 256
BTRFS_FIRST_FREE_OBJECTID = 256  # inode of every subvolume's root

_BTRFS_SUBVOL_RDONLY = 1 << 1
_BTRFS_SUBVOL_SPEC_BY_ID = 1 << 4  # Linux 5.7
_BTRFS_QGROUP_LIMIT_MAX_RFER = 0x1
_BTRFS_ROOT_TREE_OBJECTID = 1
_BTRFS_QUOTA_TREE_OBJECTID = 8
_BTRFS_INODE_ITEM_KEY = 1
_BTRFS_ROOT_ITEM_KEY = 132
_BTRFS_ROOT_BACKREF_KEY = 144
_BTRFS_ROOT_REF_KEY = 156
_BTRFS_QGROUP_STATUS_KEY = 240
_BTRFS_QGROUP_INFO_KEY = 242
_BTRFS_QGROUP_LIMIT_KEY = 244
_BTRFS_QGROUP_RELATION_KEY = 246

_STATUS_ITEM = struct.Struct("<QQQ")  # version, generation, flags
_INFO_ITEM = struct.Struct("<QQQQQ")  # generation, rfer, rfer_cmpr, excl, excl_cmpr
_GENERATION = struct.Struct("<Q")  # begins the item of an inode
_LIMIT_ITEM = struct.Struct("<QQQQQ")  # flags, max_rfer, max_excl, rsv_rfer, rsv_excl

# struct file_handle of a subvolume's root: handle_bytes, handle_type; objectid, root_objectid, gen (fs/btrfs/export.h).
_FILE_HANDLE = struct.Struct("=IiQQI")
_FILE_HANDLE_BYTES = 20
_FILEID_BTRFS_WITHOUT_PARENT = 0x4D

_U32 = 2**32 - 1
_U64 = 2**64 - 1
_LEVEL_SHIFT = 48
_MANY, _MANY_BYTES = 2**32 - 1, 65536  # items in one answer, and room for them
_ONE_BYTES = 1024

_open_by_handle_at = function("open_by_handle_at", ctypes.c_int, ctypes.c_char_p, ctypes.c_int)


@dataclass(frozen=True, slots=True)
class QgroupInfo:
    """What a quota group holds as of the last commit: all that is reached, and what is reached by it alone."""

    referenced_bytes: int
    exclusive_bytes: int


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a tree."""

    objectid: int
    type: int
    offset: int
    data: bytes


def qgroup_id(level: int, number: int) -> int:
    """Make the id that people write as 'level/number'."""
    return level << _LEVEL_SHIFT | number


def create_subvolume(dir_fd: int, name: str) -> None:
    """Make an empty subvolume in a directory, owned by this process, with mode 0755 under the umask."""
    ioctl(dir_fd, BTRFS_IOC_SUBVOL_CREATE, _vol_args(name))


def destroy_subvolume(dir_fd: int, name: str) -> None:
    """Unlink a subvolume; the cleaner frees its bytes later. ENOTEMPTY where others are nested in it."""
    ioctl(dir_fd, BTRFS_IOC_SNAP_DESTROY, _vol_args(name))


def destroy_subvolume_by_id(fd: int, subvolume_id: int) -> None:
    """Do the same, wherever in the filesystem it lies; ENOENT where there is none of this id."""
    ioctl(fd, BTRFS_IOC_SNAP_DESTROY_V2, _VOL_ARGS_V2.pack(0, 0, _BTRFS_SUBVOL_SPEC_BY_ID, subvolume_id))


def open_subvolume(fd: int, subvolume_id: int) -> int:
    """Open the root of a subvolume, however deep it lies; ENOENT or ESTALE where there is none of this id.

    Needs CAP_DAC_READ_SEARCH.
    """
    item = _lookup(fd, subvolume_id, BTRFS_FIRST_FREE_OBJECTID, _BTRFS_INODE_ITEM_KEY, 0)
    if item is None:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), f"root of subvolume {subvolume_id}")
    (generation,) = _GENERATION.unpack_from(item.data)  # Linux before 6.2 takes no handle without it
    handle = _FILE_HANDLE.pack(
        _FILE_HANDLE_BYTES,
        _FILEID_BTRFS_WITHOUT_PARENT,
        BTRFS_FIRST_FREE_OBJECTID,
        subvolume_id,
        generation & _U32,
    )
    return _open_by_handle_at(fd, handle, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def make_writable(fd: int) -> bool:
    """Let the subvolume whose root `fd` is be read-only no more, as its owner may have made it; False if it was not.

    EINVAL for what is not the root of one, ENOTTY on other filesystems.
    """
    (flags,) = _SUBVOL_FLAGS.unpack(ioctl(fd, BTRFS_IOC_SUBVOL_GETFLAGS, bytes(_SUBVOL_FLAGS.size)))
    if not flags & _BTRFS_SUBVOL_RDONLY:
        return False
    ioctl(fd, BTRFS_IOC_SUBVOL_SETFLAGS, _SUBVOL_FLAGS.pack(flags & ~_BTRFS_SUBVOL_RDONLY))
    return True


def subvolume_id_of(fd: int) -> int:
    """Give the id of the subvolume that a file lies in."""
    request = _INO_LOOKUP_ARGS.pack(0, BTRFS_FIRST_FREE_OBJECTID, b"")
    found: int = _INO_LOOKUP_ARGS.unpack(ioctl(fd, BTRFS_IOC_INO_LOOKUP, request))[0]
    return found


def nested_subvolumes(fd: int, subvolume_id: int) -> list[int]:
    """List the subvolumes whose parent is the given one."""
    refs = search(fd, _BTRFS_ROOT_TREE_OBJECTID, subvolume_id, _BTRFS_ROOT_REF_KEY)
    return [item.offset for item in refs]


def parent_of(fd: int, subvolume_id: int) -> int | None:
    """Give the subvolume that another one is nested in; None for one that is destroyed."""
    item = next(search(fd, _BTRFS_ROOT_TREE_OBJECTID, subvolume_id, _BTRFS_ROOT_BACKREF_KEY), None)
    return item.offset if item else None


def subvolumes_from(fd: int, first: int) -> Iterator[int]:
    """List the subvolumes whose id is `first` or more, in their order; a later one has a greater id."""
    while True:
        found = _search_once(
            fd,
            _BTRFS_ROOT_TREE_OBJECTID,
            (first, _BTRFS_LAST_FREE_OBJECTID),
            _BTRFS_ROOT_ITEM_KEY,
            (0, _U64),
            _MANY_BYTES,
            _MANY,
        )
        if not found:
            return
        for item in found:
            if item.type == _BTRFS_ROOT_ITEM_KEY:
                yield item.objectid
        first = found[-1].objectid + 1


def subvolume_exists(fd: int, subvolume_id: int) -> bool:
    """Tell whether a subvolume is there, or destroyed and not yet freed."""
    item = next(search(fd, _BTRFS_ROOT_TREE_OBJECTID, subvolume_id, _BTRFS_ROOT_ITEM_KEY), None)
    return item is not None


def quota_status(fd: int) -> int:
    """Give the BTRFS_QGROUP_STATUS_FLAG_ bits; 0 where quotas are off."""
    try:
        item = _lookup(fd, _BTRFS_QUOTA_TREE_OBJECTID, 0, _BTRFS_QGROUP_STATUS_KEY, 0)
    except OSError as error:
        if error.errno == errno.ENOENT:  # no quota tree
            return 0
        raise
    flags: int = _STATUS_ITEM.unpack_from(item.data)[2] if item else 0
    return flags


def quota_ctl(fd: int, command: int) -> None:
    """Switch quotas on or off (BTRFS_QUOTA_CTL_); EINVAL where the kernel does not know the command."""
    ioctl(fd, BTRFS_IOC_QUOTA_CTL, _QUOTA_CTL_ARGS.pack(command, 0))


def quota_rescan(fd: int) -> None:
    """Begin to count anew in the background; EINPROGRESS where that is going on."""
    ioctl(fd, BTRFS_IOC_QUOTA_RESCAN, _QUOTA_RESCAN_ARGS.pack(0, 0))


def quota_rescan_wait(fd: int) -> None:
    """Wait until no rescan is going on."""
    ioctl_number(fd, BTRFS_IOC_QUOTA_RESCAN_WAIT)


def qgroup_create(fd: int, qgroup: int) -> None:
    """Make a quota group; EEXIST where it is, ENOTCONN where quotas are off."""
    ioctl(fd, BTRFS_IOC_QGROUP_CREATE, _QGROUP_CREATE_ARGS.pack(1, qgroup))


def qgroup_remove(fd: int, qgroup: int) -> None:
    """Remove a quota group; ENOENT where there is none, EBUSY where it has members, or its subvolume is there."""
    ioctl(fd, BTRFS_IOC_QGROUP_CREATE, _QGROUP_CREATE_ARGS.pack(0, qgroup))


def qgroup_assign(fd: int, child: int, parent: int) -> None:
    """Let a quota group count in another one; EEXIST where it does, EINVAL where one of them is not there."""
    ioctl(fd, BTRFS_IOC_QGROUP_ASSIGN, _QGROUP_ASSIGN_ARGS.pack(1, child, parent))


def qgroup_unassign(fd: int, child: int, parent: int) -> None:
    """Let a quota group count in another one no more; ENOENT where it does not."""
    ioctl(fd, BTRFS_IOC_QGROUP_ASSIGN, _QGROUP_ASSIGN_ARGS.pack(0, child, parent))


def qgroup_limit(fd: int, qgroup: int, referenced_bytes: int | None) -> None:
    """Set what a quota group may reference; None takes the limit away."""
    limit = _U64 if referenced_bytes is None else referenced_bytes
    request = _QGROUP_LIMIT_ARGS.pack(qgroup, _BTRFS_QGROUP_LIMIT_MAX_RFER, limit, 0, 0, 0)
    ioctl(fd, BTRFS_IOC_QGROUP_LIMIT, request)


def qgroup_info(fd: int, qgroup: int) -> QgroupInfo | None:
    """Read what a quota group holds; None where there is none."""
    item = _lookup(fd, _BTRFS_QUOTA_TREE_OBJECTID, 0, _BTRFS_QGROUP_INFO_KEY, qgroup)
    if item is None:
        return None
    _, referenced, _, exclusive, _ = _INFO_ITEM.unpack_from(item.data)
    return QgroupInfo(referenced, exclusive)


def qgroup_limit_of(fd: int, qgroup: int) -> int | None:
    """Read what a quota group may reference; None where there is no limit, or no such group."""
    item = _lookup(fd, _BTRFS_QUOTA_TREE_OBJECTID, 0, _BTRFS_QGROUP_LIMIT_KEY, qgroup)
    if item is None:
        return None
    flags, referenced, *_ = _LIMIT_ITEM.unpack_from(item.data)
    return referenced if flags & _BTRFS_QGROUP_LIMIT_MAX_RFER and referenced != _U64 else None


def qgroup_members(fd: int, qgroup: int) -> list[int]:
    """List the quota groups that count in one of a higher level."""
    items = search(fd, _BTRFS_QUOTA_TREE_OBJECTID, qgroup, _BTRFS_QGROUP_RELATION_KEY)
    return [item.offset for item in items if item.offset < qgroup]  # each relation is kept both ways


def qgroup_parents(fd: int, qgroup: int) -> list[int]:
    """List the quota groups of a higher level that one counts in."""
    items = search(fd, _BTRFS_QUOTA_TREE_OBJECTID, qgroup, _BTRFS_QGROUP_RELATION_KEY)
    return [item.offset for item in items if item.offset > qgroup]


def search(fd: int, tree: int, objectid: int, item_type: int, offsets: tuple[int, int] = (0, _U64)) -> Iterator[Item]:
    """Give the items of a tree under one objectid and type whose offset lies within the bounds, in their order.

    Needs CAP_SYS_ADMIN. ENOENT where there is no such tree.
    """
    first, last = offsets
    while first <= last:
        found = _search_once(fd, tree, (objectid, objectid), item_type, (first, last), _MANY_BYTES, _MANY)
        if not found:
            return
        yield from found
        first = found[-1].offset + 1


def _lookup(fd: int, tree: int, objectid: int, item_type: int, offset: int) -> Item | None:
    found = _search_once(fd, tree, (objectid, objectid), item_type, (offset, offset), _ONE_BYTES, 1)
    return found[0] if found else None


def _search_once(
    fd: int,
    tree: int,
    objectids: tuple[int, int],
    item_type: int,
    offsets: tuple[int, int],
    room_bytes: int,
    count: int,
) -> list[Item]:
    """Make one request: the bounds are those of the whole key, so that between two objectids lies all of the first."""
    key = _SEARCH_KEY.pack(tree, *objectids, *offsets, 0, _U64, item_type, item_type, count, 0)
    answer = ioctl(fd, BTRFS_IOC_TREE_SEARCH_V2, key + _SEARCH_SIZE.pack(room_bytes) + bytes(room_bytes))
    items, at = [], _SEARCH_KEY.size + _SEARCH_SIZE.size
    for _ in range(_SEARCH_KEY.unpack_from(answer)[9]):
        _, objectid, offset, kind, length = _SEARCH_HEADER.unpack_from(answer, at)
        at += _SEARCH_HEADER.size
        items.append(Item(objectid, kind, offset, answer[at : at + length]))
        at += length
    return items


def _vol_args(name: str) -> bytes:
    raw = os.fsencode(name)
    if len(raw) > _NAME_MAX:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), name)
    return _VOL_ARGS.pack(0, raw)
