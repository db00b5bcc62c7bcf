"""What a directory can be used as, and what flags make of a mount."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.capabilities import (
    MountAttributes,
    Nature,
    attributes,
    check,
    check_mount,
    expected,
    filesystem_options,
    is_readonly,
    refusal,
    seen,
)
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

SWITCHES = {
    "suid": MOUNT_ATTR_NOSUID,
    "dev": MOUNT_ATTR_NODEV,
    "exec": MOUNT_ATTR_NOEXEC,
    "diratime": MOUNT_ATTR_NODIRATIME,
    "symfollow": MOUNT_ATTR_NOSYMFOLLOW,
}
ATIMES = {"noatime": MOUNT_ATTR_NOATIME, "relatime": MOUNT_ATTR_RELATIME, "strictatime": MOUNT_ATTR_STRICTATIME}
FLAGS = ["ro", "rw", *ATIMES, *SWITCHES, *(f"no{flag}" for flag in SWITCHES)]
SINGLE = {mode for mode in AccessMode if mode.name.startswith("SINGLE_NODE")}

EXT4 = Nature(block=False, fs_type="ext4", own_filesystem=False)
XFS = Nature(block=False, fs_type="xfs", own_filesystem=False)

flag_lists = st.lists(st.sampled_from(FLAGS), max_size=8)


def with_flags(*flags: str, mode: AccessMode = AccessMode.SINGLE_NODE_WRITER) -> Capability:
    return Capability(mode, mount_flags=flags)


@pytest.mark.parametrize("mode", list(AccessMode))
def test_only_the_modes_of_one_node_can_be_had(mode: AccessMode) -> None:
    reason = refusal(Capability(mode), EXT4)
    assert (reason == "") == (mode in SINGLE)
    if reason:
        assert mode.name in reason
        with pytest.raises(InvalidRequest, match="one node"):
            check(Capability(mode), EXT4)


@pytest.mark.parametrize("mode", list(AccessMode))
def test_a_volume_is_raw_block_or_has_a_filesystem(mode: AccessMode) -> None:
    block = Nature(block=True, fs_type="", own_filesystem=False)
    assert "ask for a mount volume" in refusal(Capability(mode, block=True), EXT4)
    assert "ask for a block volume" in refusal(Capability(mode), block)
    assert (refusal(Capability(mode, block=True), block) == "") == (mode in SINGLE)


def test_the_filesystem_is_the_pools_own_or_not_named() -> None:
    for fs_type in ("", "xfs"):
        check(Capability(AccessMode.SINGLE_NODE_WRITER, fs_type=fs_type), XFS)
    for fs_type in ("ext4", "XFS", "xfs "):
        with pytest.raises(InvalidRequest, match=f"fs_type '{fs_type}'.*'xfs'"):
            check(Capability(AccessMode.SINGLE_NODE_WRITER, fs_type=fs_type), XFS)


def test_a_mount_group_is_the_orchestrators_to_set() -> None:
    with pytest.raises(InvalidRequest, match="volume_mount_group"):
        check_mount(Capability(AccessMode.SINGLE_NODE_WRITER, volume_mount_group="1000"), XFS)


@given(flag_lists, st.booleans())
def test_the_last_of_contrary_flags_wins_and_nothing_lifts_read_only(flags: list[str], readonly: bool) -> None:
    found = attributes(with_flags(*flags), readonly=readonly)
    mount = expected(MOUNT_ATTR_STRICTATIME, found)
    for flag, bit in SWITCHES.items():
        last = next((given for given in reversed(flags) if given in (flag, f"no{flag}")), flag)
        assert bool(mount & bit) == last.startswith("no")
    last = next((given for given in reversed(flags) if given in ATIMES), "strictatime")
    assert mount & MOUNT_ATTR__ATIME == ATIMES[last]
    assert bool(mount & MOUNT_ATTR_RDONLY) == (readonly or "ro" in flags)


@given(flag_lists)
def test_flags_may_come_one_by_one_or_joined(flags: list[str]) -> None:
    joined = with_flags(",".join(flags)) if flags else with_flags()
    assert attributes(with_flags(*flags), readonly=False) == attributes(joined, readonly=False)


@given(flag_lists, st.booleans(), st.sampled_from(sorted(SINGLE, key=lambda mode: mode.name)))
def test_the_attributes_agree_on_read_only(flags: list[str], readonly: bool, mode: AccessMode) -> None:
    capability = with_flags(*flags, mode=mode)
    is_ro = is_readonly(capability, readonly=readonly)
    assert bool(attributes(capability, readonly=readonly).attr_set & MOUNT_ATTR_RDONLY) == is_ro
    assert is_ro or mode is not AccessMode.SINGLE_NODE_READER_ONLY


@given(flag_lists)
def test_the_kernel_takes_what_the_flags_give(flags: list[str]) -> None:
    """It refuses to change the kind of atime unless all of its bits are cleared (mount_setattr(2))."""
    found = attributes(with_flags(*flags), readonly=False)
    assert found.attr_clr & MOUNT_ATTR__ATIME in (0, MOUNT_ATTR__ATIME)
    if found.attr_set & MOUNT_ATTR__ATIME:
        assert found.attr_clr & MOUNT_ATTR__ATIME == MOUNT_ATTR__ATIME
    assert found.attr_set & found.attr_clr & ~MOUNT_ATTR__ATIME == 0


@pytest.mark.parametrize("flag", ["", "discard", "RO", "quota", "noatime ", "bind", "remount", "uid=0", "ro,", "\n"])
def test_a_flag_that_no_bind_mount_can_honour_is_named(flag: str) -> None:
    wrong = flag.removeprefix("ro,")
    with pytest.raises(InvalidRequest, match="a bind mount cannot honour it") as caught:
        check(with_flags("nodev", flag), EXT4)
    assert f"mount flag {wrong!r}" in str(caught.value)


def test_flags_of_a_filesystem_are_for_a_volume_that_has_one_of_its_own() -> None:
    asked = with_flags("noatime", "discard,nodev", "commit=30")
    own = Nature(block=False, fs_type="ext4", own_filesystem=True)
    check(asked, own)
    assert filesystem_options(asked) == "discard,commit=30"
    assert attributes(asked, readonly=False, own_filesystem=True) == attributes(
        with_flags("noatime", "nodev"), readonly=False
    )


def test_room_that_was_set_aside_is_not_given_back() -> None:
    own = Nature(block=False, fs_type="xfs", own_filesystem=True, preallocated=True)
    check(with_flags("noatime", "nodiscard"), own)
    for flags in (("discard",), ("noatime,discard",)):
        with pytest.raises(InvalidRequest, match=r"'discard': .* take a class with 'thin: true'"):
            check(with_flags(*flags), own)


@pytest.mark.parametrize(
    ("statvfs_flags", "attribute"),
    [
        (os.ST_RDONLY, MOUNT_ATTR_RDONLY | MOUNT_ATTR_STRICTATIME),
        (os.ST_NOSUID | os.ST_RELATIME, MOUNT_ATTR_NOSUID),
        (os.ST_NODEV | os.ST_RELATIME, MOUNT_ATTR_NODEV),
        (os.ST_NOEXEC | os.ST_RELATIME, MOUNT_ATTR_NOEXEC),
        (os.ST_NODIRATIME | os.ST_RELATIME, MOUNT_ATTR_NODIRATIME),
        (0x2000 | os.ST_RELATIME, MOUNT_ATTR_NOSYMFOLLOW),
        (os.ST_NOATIME, MOUNT_ATTR_NOATIME),
        (os.ST_RELATIME | os.ST_SYNCHRONOUS | os.ST_MANDLOCK, 0),
        (0, MOUNT_ATTR_STRICTATIME),
    ],
)
def test_what_statvfs_tells_is_translated(statvfs_flags: int, attribute: int) -> None:
    assert seen(statvfs_flags) == attribute


def test_nothing_asked_leaves_the_mount_as_its_pool_is() -> None:
    assert attributes(with_flags(), readonly=False) == MountAttributes(0, 0)
    assert expected(0x1F, MountAttributes(0, 0)) == 0x1F
