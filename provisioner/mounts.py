"""Mounts of volumes at targets: made whole in one step, undone one by one, compared on a retry."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress

from provisioner import loops
from provisioner.capabilities import MountAttributes, expected, seen
from provisioner.errors import TargetOccupied, VolumeInUse
from provisioner.holders import describe, holders_of
from provisioner.linux.close import close_path
from provisioner.linux.mount import (
    MOVE_MOUNT_F_EMPTY_PATH,
    MS_PRIVATE,
    OPEN_TREE_CLONE,
    UMOUNT_NOFOLLOW,
    mount_setattr,
    move_mount,
    open_tree,
    umount2,
)
from provisioner.linux.mountinfo import read_mountinfo
from provisioner.linux.statmount import statmount
from provisioner.linux.statx import (
    AT_EMPTY_PATH,
    AT_SYMLINK_NOFOLLOW,
    STATX_BASIC_STATS,
    STATX_MNT_ID_UNIQUE,
    Statx,
    statx,
)
from provisioner.publications import folder_of
from provisioner.targets import Target


def is_same(found: Statx, source: Statx) -> bool:
    """Tell whether a mount shows the directory `source`."""
    return found.mount_root and (found.dev, found.ino) == (source.dev, source.ino)


def has_attributes(target: Target, source_fd: int, wanted: MountAttributes) -> bool:
    """Tell whether the mount at a target has just the attributes that a new one would get."""
    source = seen(os.fstatvfs(source_fd).f_flag)
    return seen(os.statvfs(target.by_parent).f_flag) == expected(source, wanted)


def make_folder(target: Target) -> bool:
    """Make the target a directory; False where something is there already."""
    try:
        os.mkdir(target.name, 0o750, dir_fd=target.parent_fd)
    except FileExistsError:
        return False
    return True


def make_file(target: Target) -> bool:
    """Make the target a file, for a device to be bound to; False where something is there already."""
    try:
        os.mknod(target.name, stat.S_IFREG | 0o640, dir_fd=target.parent_fd)
    except FileExistsError:
        return False
    return True


def check_file(target: Target, found: Statx | None) -> None:
    """Raise TargetOccupied unless what was found at the target is an empty file."""
    if found is None or not stat.S_ISREG(found.mode) or found.size_bytes:
        raise TargetOccupied(
            f"target_path {target.path!r}: wanted nothing or an empty file there, found something else; left alone"
        )


def check_folder(target: Target, found: Statx | None) -> None:
    """Raise TargetOccupied unless what was found at the target is an empty directory."""
    if found is None or not stat.S_ISDIR(found.mode) or _entries(target):
        raise TargetOccupied(
            f"target_path {target.path!r}: wanted nothing or an empty directory there, found something else; "
            "it is left alone"
        )


def _entries(target: Target) -> bool:
    fd = os.open(target.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=target.parent_fd)
    try:
        with os.scandir(fd) as entries:
            return next(entries, None) is not None
    finally:
        os.close(fd)


def bind(source_fd: int, target: Target, wanted: MountAttributes, *, private: bool) -> None:
    """Mount a directory at a target with its attributes from the first moment on.

    private: the mount that the directory lies on has no peers, so a clone of it has none either.

    The clone is detached until it is complete: a read-only one is never seen writable, and a crash in
    between leaves nothing (open_tree(2), mount_setattr(2), move_mount(2)). What is mounted inside the
    volume stays behind.
    """
    tree_fd = open_tree("", dir_fd=source_fd, flags=OPEN_TREE_CLONE | os.O_CLOEXEC | AT_EMPTY_PATH)
    try:
        if wanted != MountAttributes() or not private:
            mount_setattr(
                tree_fd,
                "",
                flags=AT_EMPTY_PATH,
                attr_set=wanted.attr_set,
                attr_clr=wanted.attr_clr,
                propagation=MS_PRIVATE,  # the clone would else be a peer of the pool's own mount
            )
        # Without MOVE_MOUNT_T_SYMLINKS a last name that became a symlink is refused.
        move_mount("", target.name, from_dir_fd=tree_fd, to_dir_fd=target.parent_fd, flags=MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        with suppress(OSError):  # the mount is made, or its error told
            close_path(tree_fd)


def set_attributes(target: Target, wanted: MountAttributes) -> None:
    """Give a mount that stands at a target its attributes."""
    mount_setattr(
        target.parent_fd,
        target.name,
        flags=AT_SYMLINK_NOFOLLOW,
        attr_set=wanted.attr_set,
        attr_clr=wanted.attr_clr,
    )


def ensure_unmounted(target: Target, is_ours: Callable[[Statx], bool]) -> None:
    """Take every mount of ours away from a path, from the top, and leave the rest; VolumeInUse names who holds one."""
    found = look(target)
    while found is not None and found.mount_root and is_ours(found):
        _unmount(target, found)
        found = look(target)


def ensure_absent(target: Target, is_ours: Callable[[Statx], bool]) -> None:
    """Take every mount of the volume away from a target, then the empty directory itself.

    TargetOccupied for what is not ours, which is left alone; VolumeInUse names who holds it. Never lazy, never
    recursive.
    """
    found = look(target)
    while found is not None and found.mount_root:
        if not is_ours(found):
            raise TargetOccupied(f"target_path {target.path!r}: something else is mounted there; it is left alone")
        _unmount(target, found)
        with suppress(OSError):  # another mount below, or what the next look tells
            os.rmdir(target.name, dir_fd=target.parent_fd)
            return
        found = look(target)
    if found is not None:
        _remove_folder(target, found)


def look(target: Target) -> Statx | None:
    """Examine what stands at a target, also where the filesystem mounted there is dead: XFS then answers EIO."""
    try:
        return target.look()
    except OSError:
        mount = _dead_mount(target)
        if mount is None:
            raise
        return mount


def _dead_mount(target: Target) -> Statx | None:
    """Tell the mount on top of a target without a question to its filesystem; None where there is none."""
    try:
        fd = os.open(target.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=target.parent_fd)
    except FileNotFoundError:
        return None
    try:
        with open(f"/proc/self/fdinfo/{fd}", "rb") as lines:
            mnt_id = next(int(line[7:]) for line in lines if line.startswith(b"mnt_id:"))
    finally:
        os.close(fd)
    if mnt_id == statx("", dir_fd=target.parent_fd, flags=AT_EMPTY_PATH).mnt_id:
        return None
    dev = next((mount.dev for mount in read_mountinfo() if mount.mnt_id == mnt_id), 0)
    return Statx(
        stat.S_IFDIR, 0, dev, 0, 0, 0, 0, 0, mnt_id, mount_root=True, immutable=False, append_only=False, mask=0
    )


def is_of_folder(target: Target, folder: str, source: Statx | None, found: Statx) -> bool:
    """Tell whether what is mounted at a target is of the volume in a folder.

    source: the volume's own directory where it is still there; else the mount's root within its filesystem tells
    whose it is, and of a device what it shows. One that shows nothing any more is nobody else's.
    """
    if source is not None:
        if is_same(found, source):
            return True
        if found.dev != source.dev:  # another pool's, of the same name
            return False
    number = loops.number_of(found)
    if number is not None and stat.S_ISBLK(found.mode) and loops.image_behind(number) is None:
        return folder != ""
    behind = "" if number is None else loops.folder_behind(number)  # a pool may lie on a loop device as well
    return folder != "" and (behind or folder_of(_root_of(target, found))) == folder


def _root_of(target: Target, found: Statx) -> str:
    """Give the root of the topmost mount at a target within its filesystem."""
    with suppress(OSError):
        unique = statx(
            target.name,
            dir_fd=target.parent_fd,
            flags=AT_SYMLINK_NOFOLLOW,
            mask=STATX_BASIC_STATS | STATX_MNT_ID_UNIQUE,
        )
        return statmount(unique.mnt_id).root
    # Before Linux 6.8, or on a dead filesystem; only on the rare way where the volume itself is gone.
    return next((mount.root for mount in read_mountinfo() if mount.mnt_id == found.mnt_id), "")


def _unmount(target: Target, found: Statx) -> None:
    try:
        umount2(target.by_parent, UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.EBUSY:
            held = describe(holders_of(found.mnt_id, found.dev))
            raise VolumeInUse(f"target_path {target.path!r} is busy: {held}; end what holds it, then retry") from error
        # EINVAL: not a mount any more, somebody else was quicker; or one that this process may not unmount.
        if error.errno != errno.EINVAL or _stands(target, found):
            raise


def _stands(target: Target, found: Statx) -> bool:
    again = look(target)
    return again is not None and again.mnt_id == found.mnt_id


def _remove_folder(target: Target, found: Statx) -> None:
    if stat.S_ISREG(found.mode) and not found.size_bytes:  # what a device was bound to
        os.unlink(target.name, dir_fd=target.parent_fd)
        return
    if not stat.S_ISDIR(found.mode):
        raise TargetOccupied(f"target_path {target.path!r}: wanted a directory, found something else; it is left alone")
    try:
        os.rmdir(target.name, dir_fd=target.parent_fd)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
            raise TargetOccupied(
                f"target_path {target.path!r}: cannot be removed ({error.strerror}); what lies in it is left alone"
            ) from error
        raise
