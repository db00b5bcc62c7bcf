"""/proc/PID/mountinfo: lines as proc(5) gives them, and as this kernel does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.linux.mount import MS_BIND, MS_NOATIME, MS_RDONLY, mount
from provisioner.linux.mountinfo import MountInfo, parse_line, read_mountinfo
from provisioner.linux.statx import statx

_PLAIN = MountInfo(
    mnt_id=36,
    parent_id=35,
    dev=os.makedev(98, 0),
    root="/mnt1",
    mount_point="/mnt2",
    options=("rw", "noatime"),
    fs_type="ext3",
    source="/dev/root",
    super_options=("rw", "errors=continue"),
)


@pytest.mark.parametrize("optional", [b"", b" master:1", b" shared:4 master:1 propagate_from:2", b" unbindable"])
def test_optional_fields_may_be_any_number(optional: bytes) -> None:
    line = b"36 35 98:0 /mnt1 /mnt2 rw,noatime" + optional + b" - ext3 /dev/root rw,errors=continue\n"
    assert parse_line(line) == _PLAIN


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (rb"/a\040b", "/a b"),
        (rb"/a\011\012\134\043", "/a\t\n\\#"),
        (rb"/a\134040", r"/a\040"),
        (rb"/a\040-\040b", "/a - b"),
        (rb"/a//deleted", "/a//deleted"),
        (b"/caf\xe9\xff", "/caf\udce9\udcff"),
        (rb"/no\escape\9", r"/no\escape\9"),
        (rb"/no\089", r"/no\089"),
    ],
)
def test_escapes_are_undone_once(field: bytes, expected: str) -> None:
    found = parse_line(b"1 2 0:3 %b %b rw - tmpfs %b rw\n" % (field, field, field))
    assert (found.root, found.mount_point, found.source) == (expected, expected, expected)


def test_a_comma_in_an_option_is_part_of_it() -> None:
    found = parse_line(rb"1 2 0:3 / / rw - overlay none rw,lowerdir=/a\054b,upperdir=/c" + b"\n")
    assert found.super_options == ("rw", "lowerdir=/a,b", "upperdir=/c")


def test_a_source_may_be_empty() -> None:
    assert parse_line(b"1 2 0:3 / / rw - tmpfs  rw\n").source == ""


@given(st.binary(min_size=1).filter(lambda raw: b"\0" not in raw))
def test_every_name_comes_back(raw: bytes) -> None:
    """Escape as the kernel does, then parse."""
    escaped = b"".join(b"\\%03o" % byte if byte in b" \t\n\\#" else bytes([byte]) for byte in raw)
    found = parse_line(b"1 2 0:3 /%b / rw - tmpfs none rw\n" % escaped)
    assert os.fsencode(found.root) == b"/" + raw


@pytest.mark.parametrize("line", [b"", b"\n", b"1 2 0:3 / / rw\n", b"one 2 0:3 / / rw - a b c\n"])
def test_nonsense_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whichever part of the line is wrong
        parse_line(line)


def test_a_real_mount_is_read(memory: Path) -> None:
    source, target = memory / "so ur\\ce", memory / "tar\n \t\\040get"
    source.mkdir()
    target.mkdir()
    mount("dev #\\x", source, "tmpfs", flags=MS_NOATIME, data="size=64k")
    (source / "sub dir").mkdir()
    mount(source / "sub dir", target, flags=MS_BIND)
    found = {mounted.mount_point: mounted for mounted in read_mountinfo()}
    whole, part = found[str(source)], found[str(target)]
    assert (whole.root, whole.fs_type, whole.source) == ("/", "tmpfs", "dev #\\x")
    assert (part.root, part.dev, part.source) == ("/sub dir", whole.dev, "dev #\\x")
    assert whole.options == ("rw", "noatime")
    assert "size=64k" in whole.super_options
    assert (whole.mnt_id, part.mnt_id) == (statx(source).mnt_id, statx(target).mnt_id)
    assert whole.parent_id == part.parent_id == statx(memory).mnt_id


def test_mount_and_filesystem_have_options_of_their_own(memory: Path) -> None:
    (memory / "ro").mkdir()
    mount("none", memory / "ro", "tmpfs", flags=MS_RDONLY)
    found = next(mounted for mounted in read_mountinfo() if mounted.mount_point == str(memory / "ro"))
    assert (found.options[0], found.super_options[0]) == ("ro", "ro")


def test_every_line_of_this_machine_is_read() -> None:
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    assert len(list(read_mountinfo())) == len(lines)


def test_another_process_is_asked_by_its_id(memory: Path) -> None:
    points = [found.mount_point for found in read_mountinfo(os.getpid())]
    assert str(memory) in points
    with pytest.raises(FileNotFoundError, match="/proc/999999999/mountinfo"):
        list(read_mountinfo(999_999_999))
