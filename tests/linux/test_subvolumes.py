"""What is btrfs's own: quotas that are off, nested subvolumes, and groups that must not be left behind."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from provisioner.assembly import Provisioner
from provisioner.backends.subvolume import SubvolumeBackend
from provisioner.errors import InvalidRequest
from provisioner.linux import btrfs
from provisioner.model import HealthStatus, Volume
from provisioner.pace import Rarely
from provisioner.survey import survey
from tests.support.disks import until
from tests.support.limited import MIB, run_as_pod, write_as_pod
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


def _nest(folder: Path, name: str, *options: str) -> None:
    """Make a subvolume as a tenant can."""
    run_as_pod(folder, "btrfs", "subvolume", "create", *options, name)


def _number(path: Path) -> int:
    fd = os.open(path, os.O_RDONLY)
    try:
        return btrfs.subvolume_id_of(fd)
    finally:
        os.close(fd)


def _used(served: Served, volume: Volume) -> int:
    os.sync()
    return served.provisioner.publishing.statistics(volume.volume_id, str(served.targets / volume.name)).bytes.used


def test_what_a_tenant_nests_is_bound_by_the_same_limit(served: Served, fd: int) -> None:
    target = served.publish(served.create("nesting", SIZE))
    _nest(target, "one")
    _nest(target / "one", "two")
    top = _number(target)
    until(lambda: len(btrfs.qgroup_members(fd, btrfs.qgroup_id(1, top))) == 3)
    found = [write_as_pod(folder / "file", SIZE) for folder in (target / "one/two", target / "one", target)]
    assert {writer.errno for writer in found} == {errno.EDQUOT}
    assert SIZE * 0.9 <= sum(writer.bytes for writer in found) <= SIZE


def test_what_a_tenant_lets_count_in_a_neighbours_group_counts_in_his_own(served: Served, fd: int) -> None:
    """Whoever makes a subvolume may name groups that it shall count in (`btrfs subvolume create -i`)."""
    hostile, neighbour = (
        served.publish(served.create("hostile", SIZE)),
        served.publish(served.create("neighbour", SIZE)),
    )
    ours = btrfs.qgroup_id(1, _number(hostile))
    _nest(hostile, "nested", "-i", f"1/{_number(neighbour)}")
    nested = _number(hostile / "nested")
    until(lambda: btrfs.qgroup_parents(fd, nested) == [ours])
    assert write_as_pod(hostile / "nested/file", 2 * SIZE).errno == errno.EDQUOT
    assert write_as_pod(neighbour / "file", SIZE // 2).errno == 0


def test_a_neighbour_who_counts_in_a_group_does_not_keep_it_from_going(served: Served, fd: int) -> None:
    hostile, volume = served.publish(served.create("hostile", SIZE)), served.create("gone", SIZE)
    gone = _number(served.publish(volume))
    _nest(hostile, "nested", "-i", f"1/{gone}")
    served.take_away(volume)
    until(lambda: os.listdir(served.control / "trash") == [])
    assert btrfs.qgroup_id(1, gone) not in quota_groups(fd)


def test_one_that_is_moved_into_a_later_one_is_found_as_well(served: Served, fd: int) -> None:
    """The look goes by ids, and then meets the inner one first."""
    target = served.publish(served.create("moved", SIZE))
    for name in ("inner", "outer"):
        _nest(target, name)
    run_as_pod(target, "mv", "inner", "outer/inner")
    until(lambda: len(btrfs.qgroup_members(fd, btrfs.qgroup_id(1, _number(target)))) == 3)
    assert write_as_pod(target / "outer/inner/file", 2 * SIZE).errno == errno.EDQUOT


def test_a_snapshot_of_oneself_is_counted_too(served: Served, fd: int) -> None:
    target = served.publish(served.create("copied", SIZE, uid="65534"))  # a subvolume's owner may snapshot it
    assert write_as_pod(target / "file", SIZE // 4).errno == 0
    os.sync()
    run_as_pod(target, "btrfs", "subvolume", "snapshot", ".", "copy")
    top = _number(target)
    until(lambda: len(btrfs.qgroup_members(fd, btrfs.qgroup_id(1, top))) == 2)
    until(lambda: not btrfs.quota_status(fd) & btrfs.BTRFS_QGROUP_STATUS_FLAG_INCONSISTENT)
    found = write_as_pod(target / "copy/more", SIZE)
    assert (found.errno, found.bytes <= SIZE * 3 // 4) == (errno.EDQUOT, True)


def test_tenants_do_not_keep_the_filesystem_counting_anew(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each snapshot makes it necessary, and each of its users can make as many as he likes."""
    contents = served.provisioner._pools.pools[0].known
    assert contents is not None
    means = SubvolumeBackend(contents.disk, "enable")
    counted: list[int] = []
    inconsistent = btrfs.BTRFS_QGROUP_STATUS_FLAG_ON | btrfs.BTRFS_QGROUP_STATUS_FLAG_INCONSISTENT
    means._rescans = Rarely(2.0, 300.0, clock=lambda: 0.0)
    monkeypatch.setattr(btrfs, "quota_status", lambda _fd: inconsistent)
    monkeypatch.setattr(btrfs, "quota_rescan", counted.append)
    monkeypatch.setattr(contents.backends, "tend", lambda: None)
    for _ in range(5):
        means.tend()
    assert counted == [contents.disk.volumes_fd]


def test_hard_links_and_renames_end_at_each_subvolume(served: Served) -> None:
    """A nested one, or another volume; what goes on within a subvolume takes nothing more, and nothing less."""
    first, second = (served.publish(served.create(name, SIZE)) for name in ("first", "second"))
    _nest(first, "nested")
    assert write_as_pod(first / "file", SIZE // 2).errno == 0
    data = [served.control / "volumes" / name / "data" for name in ("first", "second")]
    for source, folder in ((first / "file", first / "nested"), (first / "file", second), (data[0] / "file", data[1])):
        for move in (os.link, os.rename):
            with pytest.raises(OSError, match="cross-device"):
                move(source, folder / "moved")
    os.link(first / "file", first / "link")
    os.rename(first / "link", first / "renamed")
    found = write_as_pod(first / "more", SIZE)
    assert (found.errno, found.bytes <= SIZE // 2) == (errno.EDQUOT, True)
    assert write_as_pod(second / "file", SIZE * 3 // 4).errno == 0


def test_what_two_volumes_of_a_pod_share_counts_as_the_kind_of_quota_has_it(served: Served, fd: int) -> None:
    """In both, or in the one that wrote it; there its room stays taken, and seen as such, until the other one goes."""
    one, two = (served.create(name, SIZE, uid="65534") for name in ("one", "two"))
    first, second = served.publish(one), served.publish(two)
    assert write_as_pod(first / "file", SIZE // 2).errno == 0
    run_as_pod(served.targets, "btrfs", "subvolume", "snapshot", "one", "two/copy")
    is_simple = served.means is SIMPLE
    until(lambda: (_used(served, two) < SIZE // 2) is is_simple)
    gone = _number(first)
    served.take_away(one)
    until(lambda: not btrfs.subvolume_exists(fd, gone))
    if is_simple:
        assert write_as_pod(second / "file", SIZE * 3 // 4).errno == 0
        held = btrfs.qgroup_info(fd, gone)
        assert held is not None
        assert held.referenced_bytes >= SIZE // 2
        assert os.listdir(served.control / "trash") != []
    subprocess.run(["btrfs", "subvolume", "delete", second / "copy"], check=True, stdout=subprocess.DEVNULL)
    until(lambda: os.listdir(served.control / "trash") == [])


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


@pytest.mark.parametrize("parameters", [{}, {"backend": "directory", "enforce": "besteffort"}], ids=["", "directory"])
def test_what_a_tenant_made_read_only_goes_too(served: Served, fd: int, parameters: dict[str, str]) -> None:
    """Nothing can be destroyed or removed in a subvolume that is read-only, which its owner may make it."""
    subvolumes = list(btrfs.subvolumes_from(fd, 256))
    volume = served.create("stubborn", SIZE, MULTI, uid="65534", **parameters)
    target = served.publish(volume)
    folder = target
    for name in ("one", "two", "three"):
        _nest(folder, name)
        folder /= name
        (folder / "file").touch()
    run_as_pod(target, "btrfs", "subvolume", "snapshot", "-r", "one", "copy")
    for nested in (folder, folder.parent, folder.parent.parent, *(() if parameters else (target,))):
        run_as_pod(nested, "btrfs", "property", "set", ".", "ro", "true")
    served.take_away(volume)
    until(lambda: os.listdir(served.control / "trash") == [])
    until(lambda: list(btrfs.subvolumes_from(fd, 256)) == subvolumes)


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
        served.provisioner._measurer.run_once()
        (figures,) = served.provisioner.figures()
        assert figures.contents is not None
        assert (figures.contents.lost_limits, figures.contents.escaped_limits) == (1, 0)
        (shown,) = survey(served.settings)[0].volumes
        assert (shown.state, shown.reason) == ("degraded", f"LimitLost: {problem.message}")
    with serving(means, tmp_path) as served:
        assert served.provisioner.volumes.health(volume.volume_id).problems == ()
        assert write_as_pod(served.publish(volume) / "file", 2 * SIZE).errno == errno.EDQUOT


def _count_anew(served: Served, fd: int) -> None:
    """Switch quotas off and on again, as an administrator may: groups of level 1, and with them limits, are gone."""
    btrfs.quota_ctl(fd, btrfs.BTRFS_QUOTA_CTL_DISABLE)
    simple = served.means is SIMPLE
    btrfs.quota_ctl(fd, btrfs.BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA if simple else btrfs.BTRFS_QUOTA_CTL_ENABLE)


def test_a_volume_goes_whose_groups_went_before_it(served: Served, fd: int) -> None:
    subvolumes = list(btrfs.subvolumes_from(fd, 256))
    volume = served.create("gone", SIZE)
    target = served.publish(volume)
    _nest(target, "one")
    _nest(target / "one", "two")
    _count_anew(served, fd)
    groups = set(quota_groups(fd)) - set(btrfs.subvolumes_from(fd, _number(target)))
    served.take_away(volume)
    until(lambda: os.listdir(served.control / "trash") == [])
    assert list(btrfs.subvolumes_from(fd, 256)) == subvolumes
    assert set(quota_groups(fd)) == groups


def test_what_is_nested_where_groups_are_gone_keeps_nobody_from_looking_on(served: Served, fd: int) -> None:
    target = served.publish(served.create("loose", SIZE))
    _count_anew(served, fd)
    _nest(target, "nested")
    served.provisioner._pools.pools[0].examine()
    other = served.publish(served.create("other", SIZE))
    _nest(other, "nested")
    until(lambda: len(btrfs.qgroup_members(fd, btrfs.qgroup_id(1, _number(other)))) == 2)
    assert write_as_pod(other / "nested/file", 2 * SIZE).errno == errno.EDQUOT


def test_a_subvolume_that_was_taken_out_of_its_group_is_told_of_and_put_back(means: Means, tmp_path: Path) -> None:
    """The group keeps its limit, and nothing counts against it."""
    with serving(means, tmp_path) as served:
        volume = served.create("loose", SIZE)
        number = _number(served.control / "volumes/loose/data")
        subprocess.run(["btrfs", "qgroup", "remove", f"0/{number}", f"1/{number}", tmp_path / means.kind], check=True)
        (problem,) = served.provisioner.volumes.health(volume.volume_id).problems
        assert (problem.status, problem.reason) == (HealthStatus.DEGRADED, "LimitLost")
        assert "left its quota group" in problem.message
    with serving(means, tmp_path) as served:
        assert served.provisioner.volumes.health(volume.volume_id).problems == ()
        assert write_as_pod(served.publish(volume) / "file", 2 * SIZE).errno == errno.EDQUOT


def test_inodes_are_neither_limited_nor_counted(served: Served) -> None:
    """No number of them is known of a subvolume."""
    with pytest.raises(InvalidRequest, match="parameter 'inodes': btrfs has no limit of inodes"):
        served.create("refused", SIZE, backend="subvolume", inodes="1000")
    volume = served.create("plain", SIZE)
    assert served.provisioner.publishing.statistics(volume.volume_id, str(served.publish(volume))).inodes is None


def test_only_simple_quotas_are_switched_on_with_a_warning(means: Means, tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as lines, serving(means, tmp_path):
        said = [(line["log_level"], line["event"]) for line in lines if "switched on" in line["event"]]
    plain = ("info", "quotas switched on")
    simple = ("warning", "simple quotas switched on: kernels before 6.7 never mount this filesystem again")
    assert said == [simple if means is SIMPLE else plain]


def test_quotas_are_never_switched_on_by_surprise(means: Means, tmp_path: Path, fd: int) -> None:
    with serving(means, tmp_path, quota="require") as served:
        assert btrfs.quota_status(fd) == 0
        with pytest.raises(InvalidRequest, match="btrfs quota enable"):
            served.create("refused", SIZE, backend="subvolume")
        served.create("instead", SIZE)
        assert (served.control / "volumes/instead/disk.img").exists()
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
