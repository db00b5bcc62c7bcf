"""What is btrfs's own: quotas that are off, nested subvolumes, and groups that must not be left behind."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner.assembly import Provisioner
from provisioner.errors import InvalidRequest
from provisioner.linux import btrfs
from provisioner.model import HealthStatus
from tests.support.disks import until
from tests.support.limited import BOUND, MIB, write_as_pod
from tests.support.means import MEANS, SIMPLE, Means, Served, serving
from tests.support.provisioned import MULTI, PATIENT, wanted
from tests.support.tables import quota_groups

SIZE = 32 * MIB


@pytest.fixture(
    params=[means for means in MEANS if means.kind == "btrfs" and "quota" in means.pool], ids=lambda means: means.name
)
def means(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Means]:
    """Both ways of counting."""
    found: Means = request.param
    with found.filesystem(tmp_path):
        yield found


@pytest.fixture
def served(means: Means, tmp_path: Path) -> Iterator[Served]:
    """A pool at work."""
    with serving(means, tmp_path) as found:
        yield found


@pytest.fixture
def fd(means: Means, tmp_path: Path) -> Iterator[int]:
    """The filesystem's root, to ask of it what is there."""
    fd = os.open(tmp_path / means.kind, os.O_RDONLY)
    yield fd
    os.close(fd)


def _nest(folder: Path, name: str) -> None:
    """Make a subvolume as a tenant can."""
    subprocess.run([*BOUND, "btrfs", "-q", "subvolume", "create", name], cwd=folder, check=True)


def _number(path: Path) -> int:
    fd = os.open(path, os.O_RDONLY)
    try:
        return btrfs.subvolume_id_of(fd)
    finally:
        os.close(fd)


def test_what_a_tenant_nests_is_bound_by_the_same_limit(served: Served, fd: int) -> None:
    target = served.publish(served.create("nesting", SIZE))
    _nest(target, "one")
    _nest(target / "one", "two")
    top = _number(target)
    until(lambda: len(btrfs.qgroup_members(fd, btrfs.qgroup_id(1, top))) == 3)
    found = [write_as_pod(folder / "file", SIZE) for folder in (target / "one/two", target / "one", target)]
    assert {writer.errno for writer in found} == {errno.EDQUOT}
    assert SIZE * 0.9 <= sum(writer.bytes for writer in found) <= SIZE


def test_a_snapshot_of_oneself_is_counted_too(served: Served, fd: int) -> None:
    target = served.publish(served.create("copied", SIZE, uid="65534"))  # a subvolume's owner may snapshot it
    assert write_as_pod(target / "file", SIZE // 4).errno == 0
    os.sync()
    subprocess.run([*BOUND, "btrfs", "-q", "subvolume", "snapshot", ".", "copy"], cwd=target, check=True)
    top = _number(target)
    until(lambda: len(btrfs.qgroup_members(fd, btrfs.qgroup_id(1, top))) == 2)
    until(lambda: not btrfs.quota_status(fd) & btrfs.BTRFS_QGROUP_STATUS_FLAG_INCONSISTENT)
    found = write_as_pod(target / "copy/more", SIZE)
    assert (found.errno, found.bytes <= SIZE * 3 // 4) == (errno.EDQUOT, True)


def test_a_full_volume_with_nested_ones_leaves_no_subvolume_and_no_group(served: Served, fd: int) -> None:
    groups, subvolumes = quota_groups(fd), list(btrfs.subvolumes_from(fd, 256))
    volume = served.create("gone", SIZE)
    target = served.publish(volume)
    _nest(target, "one")
    _nest(target / "one", "two")
    (target / "one" / "folder").mkdir()
    top = _number(target)
    until(lambda: len(btrfs.qgroup_members(fd, btrfs.qgroup_id(1, top))) == 3)
    assert write_as_pod(target / "file", 2 * SIZE).errno == errno.EDQUOT
    served.take_away(volume)
    until(lambda: os.listdir(served.control / "trash") == [])
    assert quota_groups(fd) == groups
    assert list(btrfs.subvolumes_from(fd, 256)) == subvolumes


def test_a_limit_that_was_taken_away_is_told_and_set_again_at_the_next_start(
    means: Means, tmp_path: Path, fd: int
) -> None:
    with serving(means, tmp_path) as served:
        volume = served.create("loose", SIZE)
        (number,) = btrfs.subvolumes_from(fd, 256)
        btrfs.qgroup_limit(fd, btrfs.qgroup_id(1, number), None)
        (problem,) = served.provisioner.volumes.health(volume.volume_id).problems
        assert (problem.status, problem.reason) == (HealthStatus.DEGRADED, "LimitLost")
        btrfs.quota_ctl(fd, btrfs.BTRFS_QUOTA_CTL_DISABLE)
        (problem,) = served.provisioner.volumes.health(volume.volume_id).problems
        assert "quota: enable" in problem.message
        (listed,) = served.provisioner.volumes.list_health(0, "").volumes
        assert listed.problems == (problem,)
    with serving(means, tmp_path) as served:
        assert served.provisioner.volumes.health(volume.volume_id).problems == ()
        assert write_as_pod(served.publish(volume) / "file", 2 * SIZE).errno == errno.EDQUOT


def test_quotas_are_never_switched_on_by_surprise(means: Means, tmp_path: Path, fd: int) -> None:
    with serving(means, tmp_path, quota="require") as served:
        assert btrfs.quota_status(fd) == 0
        with pytest.raises(InvalidRequest, match="btrfs quota enable"):
            served.create("refused", SIZE, backend="subvolume")
        parameters = means.wanted("any", SIZE, backend="subvolume").parameters
        assert served.provisioner.volumes.capacity(parameters, (MULTI,)).available_bytes == 0
        btrfs.quota_ctl(fd, btrfs.BTRFS_QUOTA_CTL_ENABLE)
        assert served.create("made", SIZE, backend="subvolume").capacity_bytes == SIZE


def test_each_way_of_counting_is_the_one_that_was_asked_for(served: Served, fd: int) -> None:
    assert served.create("any", SIZE).capacity_bytes == SIZE
    simple = bool(btrfs.quota_status(fd) & btrfs.BTRFS_QGROUP_STATUS_FLAG_SIMPLE_MODE)
    assert simple is (served.means is SIMPLE)


def test_another_filesystem_is_refused_by_name(provisioner: Provisioner) -> None:
    with pytest.raises(InvalidRequest, match="wanted a pool on btrfs"):
        provisioner.volumes.create(wanted("refused", SIZE, backend="subvolume"), PATIENT)


def test_a_directory_is_refused_where_limits_must_hold(served: Served) -> None:
    with pytest.raises(InvalidRequest, match="enforce: besteffort"):
        served.create("refused", SIZE, backend="directory", enforce="required")
    assert served.create("plain", SIZE, backend="directory", enforce="besteffort").capacity_bytes == SIZE
