"""Which means a new volume gets, and what is said where there is none."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from provisioner.backends import Backend, Content
from provisioner.backends.choosing import Backends
from provisioner.backends.directory import DirectoryBackend
from provisioner.errors import InvalidRequest
from provisioner.parameters import ClassParameters, parse
from provisioner.records import BackendName, Enforce
from provisioner.settings import PoolSettings

BLANK = Content()


@dataclass
class Disk:
    """What means ask of a disk when they are made."""

    volumes_fd: int = -1
    tree_fd: int = -1
    staging_fd: int = -1
    fs_type: str = "btrfs"
    pool_id: str = "00000000000000ff"


class Means(DirectoryBackend):
    """A means that can be had, or not."""

    def __init__(self, name: BackendName, why_not: str) -> None:
        super().__init__(Disk())  # type: ignore[arg-type] # nothing is done on it
        self.name = name
        self.holds = name != "directory"
        self._why_not = why_not

    def refusal(self, content: Content) -> str:
        """Say why not; raw block is an image's alone."""
        return "no block here" if content.block and self.name != "image" else self._why_not


def pool(enforce: Enforce = "required", /, **why_not: str) -> Backends:
    """Give the means of a pool, some of which say why they cannot be had."""
    made = Backends(PoolSettings(name="fast", path="/nowhere", enforce=enforce), Disk())  # type: ignore[arg-type] # as above
    names = list(made._means)
    assert names == ["quota", "subvolume", "image", "directory"]
    means: dict[str, Backend] = {name: Means(found.name, why_not.get(name, "")) for name, found in made._means.items()}
    made._means = means
    return made


def chosen(backends: Backends, content: Content = BLANK, **asked: str) -> str:
    return backends.choose(parse(asked), content).name


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ((), "quota"),
        (("quota",), "subvolume"),
        (("quota", "subvolume"), "image"),  # as on btrfs whose quotas are off
        (("subvolume", "image"), "quota"),
    ],
)
def test_the_first_that_holds_is_taken(missing: tuple[str, ...], expected: str) -> None:
    assert chosen(pool("required", **dict.fromkeys(missing, "not here"))) == expected


def test_where_none_is_left_that_holds_all_their_reasons_are_told_and_no_directory_is_taken() -> None:
    backends = pool(quota="no prjquota", subvolume="no btrfs", image="no loop devices")
    with pytest.raises(InvalidRequest) as refused:
        chosen(backends)
    assert str(refused.value) == (
        "pool 'fast' cannot give such a volume: quota: no prjquota; subvolume: no btrfs; image: no loop devices"
    )
    assert chosen(backends, enforce="besteffort") == "directory"


def test_without_a_need_for_limits_a_directory_goes_before_an_image() -> None:
    assert chosen(pool("besteffort", quota="not here", subvolume="not here")) == "directory"
    assert chosen(pool("besteffort", quota="not here")) == "subvolume"
    assert chosen(pool("besteffort"), Content(block=True)) == "image"
    assert chosen(pool("besteffort", quota="not here", subvolume="not here"), enforce="required") == "image"


def test_one_that_is_named_is_taken_or_refused_and_never_another() -> None:
    backends = pool(subvolume="no btrfs")
    assert chosen(backends, backend="image") == "image"
    with pytest.raises(InvalidRequest, match="pool 'fast' cannot give 'subvolume': no btrfs"):
        chosen(backends, backend="subvolume")
    with pytest.raises(InvalidRequest, match="'directory' has none; choose another one, or say 'enforce: besteffort'"):
        chosen(backends, backend="directory")
    assert chosen(backends, backend="directory", enforce="besteffort") == "directory"


def test_the_class_goes_before_its_pool() -> None:
    assert pool("besteffort").enforce(ClassParameters()) == "besteffort"
    assert pool("besteffort").enforce(ClassParameters(enforce="required")) == "required"
