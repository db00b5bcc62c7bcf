"""Project quotas: ids that nobody else has, inodes as well as bytes, and what a tenant can and cannot do."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from provisioner.assembly import Provisioner
from provisioner.backends import quota
from provisioner.errors import InvalidRequest, Unavailable
from provisioner.linux import quotactl
from provisioner.linux.quotactl import get_quota, set_limits
from provisioner.model import CapacityRange, HealthStatus
from tests.support.disks import until
from tests.support.filesystems import make_image, mounted
from tests.support.limited import BOUND, MIB, write_as_pod
from tests.support.means import QUOTA_EXT4, QUOTA_XFS, Means, Served, has_project_quotas, serving
from tests.support.projects import move_to_project, project_of
from tests.support.provisioned import MULTI, PATIENT, wanted
from tests.support.tables import limited_projects

SIZE = 32 * MIB

in_the_vm = pytest.mark.skipif(not has_project_quotas(), reason="this kernel has no quotas: `make test-vm` runs it")

_MANY = """
import os, sys
made = 0
try:
    for made in range(20000):
        os.close(os.open(f"f{made}", os.O_CREAT | os.O_WRONLY, 0o600))
except OSError as error:
    print(made, error.errno)
"""


@pytest.fixture(params=[QUOTA_XFS, QUOTA_EXT4], ids=lambda means: means.name)
def means(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Means]:
    found: Means = request.param
    with found.filesystem(tmp_path):
        yield found


@pytest.fixture
def served(means: Means, tmp_path: Path) -> Iterator[Served]:
    with serving(means, tmp_path) as found:
        yield found


@pytest.fixture
def fd(means: Means, tmp_path: Path) -> Iterator[int]:
    """The filesystem's root, to ask of it what is there."""
    fd = os.open(tmp_path / means.kind, os.O_RDONLY)
    yield fd
    os.close(fd)


@in_the_vm
@pytest.mark.parametrize("asked", [SIZE, 10**8])
def test_df_statistics_and_the_size_are_the_same_to_the_byte(served: Served, asked: int) -> None:
    volume = served.create("exact", asked)
    target = served.publish(volume)
    df = os.statvfs(target)
    found = served.provisioner.publishing.statistics(volume.volume_id, str(target))
    assert found.bytes.total == df.f_blocks * df.f_frsize == volume.capacity_bytes
    assert 0 <= volume.capacity_bytes - asked < df.f_frsize
    assert found.inodes is not None
    assert found.inodes.total == df.f_files == volume.capacity_bytes // 16384


@in_the_vm
def test_the_limit_of_inodes_grows_with_the_size(served: Served) -> None:
    volume = served.create("grows", SIZE)
    target = served.publish(volume)
    assert os.statvfs(target).f_files == SIZE // 16384
    served.provisioner.volumes.expand(volume.volume_id, CapacityRange(2 * SIZE), MULTI, PATIENT)
    found = served.provisioner.publishing.statistics(volume.volume_id, str(target)).inodes
    assert found is not None
    assert found.total == os.statvfs(target).f_files == 2 * SIZE // 16384


@in_the_vm
def test_twenty_thousand_files_do_not_fit_ten_thousand_inodes(served: Served) -> None:
    target = served.publish(served.create("many", 256 * MIB, inodes="10000"))
    done = subprocess.run([*BOUND, sys.executable, "-c", _MANY], cwd=target, check=True, capture_output=True, text=True)
    made, refused = map(int, done.stdout.split())
    assert (made, refused) == (9999, served.means.refused)  # the root is one of them


@in_the_vm
def test_a_kernel_without_the_newer_call_holds_sizes_as_well(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotactl, "_NR_QUOTACTL_FD", 4095)  # of no system call: ENOSYS
    volume = served.create("older", SIZE)
    target = served.publish(volume)
    assert write_as_pod(target / "file", 2 * SIZE).errno == served.means.refused
    served.provisioner.volumes.expand(volume.volume_id, CapacityRange(2 * SIZE), MULTI, PATIENT)
    assert write_as_pod(target / "more", SIZE // 2).errno == 0
    assert served.provisioner.publishing.statistics(volume.volume_id, str(target)).bytes.total == 2 * SIZE
    assert served.provisioner.volumes.health(volume.volume_id).problems == ()


@in_the_vm
def test_ids_of_others_are_left_to_them(served: Served, fd: int) -> None:
    first = project_of(served.publish(served.create("first", SIZE)))
    theirs = first + 1
    set_limits(fd, theirs, 7 * MIB, 0)
    second = project_of(served.publish(served.create("second", SIZE)))
    assert second not in (first, theirs)
    assert get_quota(fd, theirs).limit_bytes == 7 * MIB


@in_the_vm
def test_an_id_whose_limit_cannot_be_set_is_not_taken(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(quota, "set_limits", fail)
        with pytest.raises(Unavailable):
            served.create("failed", SIZE)
    project = project_of(served.publish(served.create("made", SIZE)))
    contents = served.provisioner._pools.pools[0].known
    assert contents is not None
    means = contents.backends._means["quota"]
    assert isinstance(means, quota.QuotaBackend)
    assert means._ours == {project}


@in_the_vm
def test_an_id_goes_back_only_when_the_last_file_is_gone(served: Served, fd: int) -> None:
    volume = served.create("gone", SIZE)
    target = served.publish(volume)
    assert write_as_pod(target / "file", MIB).errno == 0
    project = project_of(target)
    assert limited_projects(fd) == {project}
    served.take_away(volume)
    until(lambda: limited_projects(fd) == set())
    assert os.listdir(served.control / "trash") == []


@in_the_vm
def test_a_tenant_who_takes_a_neighbours_id_leaves_it_to_him_when_he_goes(served: Served, fd: int) -> None:
    """It is the volume's own id that goes back, whatever its root says at the end."""
    theirs = project_of(served.publish(served.create("neighbour", SIZE)))
    volume = served.create("hostile", SIZE)
    move_to_project(served.publish(volume), theirs)
    served.take_away(volume)
    until(lambda: limited_projects(fd) == {theirs})
    assert get_quota(fd, theirs).limit_bytes == SIZE


@in_the_vm
def test_what_a_crash_left_is_given_back_at_the_next_start(means: Means, tmp_path: Path, fd: int) -> None:
    with serving(means, tmp_path) as served:
        project = project_of(served.publish(served.create("kept", SIZE)))
        set_limits(fd, project + 1, MIB, 10)  # as a kill right after it was taken leaves it
        set_limits(fd, 4711, MIB, 10)  # an administrator's
    with serving(means, tmp_path):
        assert limited_projects(fd) == {project, 4711}


@in_the_vm
def test_a_limit_that_was_taken_away_is_told_and_set_again(means: Means, tmp_path: Path, fd: int) -> None:
    with serving(means, tmp_path) as served:
        volume = served.create("loose", SIZE)
        set_limits(fd, project_of(served.control / "volumes/loose/data"), 0, 0)
        (problem,) = served.provisioner.volumes.health(volume.volume_id).problems
        assert (problem.status, problem.reason) == (HealthStatus.DEGRADED, "LimitLost")
    with serving(means, tmp_path) as served:
        assert served.provisioner.volumes.health(volume.volume_id).problems == ()
        assert write_as_pod(served.publish(volume) / "file", 2 * SIZE).errno == means.refused


@in_the_vm
def test_a_limit_of_inodes_that_was_taken_away_is_told_and_set_again(means: Means, tmp_path: Path, fd: int) -> None:
    with serving(means, tmp_path) as served:
        volume = served.create("loose", SIZE, inodes="100")
        project = project_of(served.control / "volumes/loose/data")
        set_limits(fd, project, SIZE, 0)
        (problem,) = served.provisioner.volumes.health(volume.volume_id).problems
        assert problem.reason == "LimitLost"
        assert "the limit of inodes is 0, wanted 100" in problem.message
    with serving(means, tmp_path) as served:
        assert served.provisioner.volumes.health(volume.volume_id).problems == ()
        assert get_quota(fd, project).limit_inodes == 100


@in_the_vm
@pytest.mark.parametrize("means", [QUOTA_XFS, QUOTA_EXT4], ids=lambda means: means.name)
def test_a_mount_without_quotas_is_told_of_each_volume_and_the_next_one_with_them_mends_it(
    means: Means, tmp_path: Path
) -> None:
    image, path = tmp_path / "disk.img", tmp_path / means.kind
    make_image(means.kind, image, means.size, *means.mkfs_options)
    with mounted(means.kind, image, path, means.options), serving(means, tmp_path) as served:
        volume = served.create("kept", SIZE)
    with mounted(means.kind, image, path), serving(means, tmp_path) as served:
        (problem,) = served.provisioner.volumes.health(volume.volume_id).problems
        assert (problem.status, problem.reason) == (HealthStatus.DEGRADED, "LimitLost")
        assert "-o prjquota" in problem.message
        assert write_as_pod(served.publish(volume) / "file", SIZE // 2).errno == 0  # it is served all the same
    with mounted(means.kind, image, path, means.options), serving(means, tmp_path) as served:
        assert served.provisioner.volumes.health(volume.volume_id).problems == ()
        found = write_as_pod(served.publish(volume) / "more", SIZE)
        assert (found.errno, found.bytes <= SIZE // 2) == (means.refused, True)


@in_the_vm
def test_a_file_that_is_given_to_a_neighbour_counts_in_his_volume(served: Served) -> None:
    """The threat model says so: his limit is used up, until the file is gone."""
    neighbour = served.publish(served.create("neighbour", SIZE))
    target = served.publish(served.create("hostile", SIZE))
    assert write_as_pod(target / "file", SIZE * 3 // 4).errno == 0
    move_to_project(target / "file", project_of(neighbour))
    assert write_as_pod(neighbour / "file", SIZE // 2).errno == served.means.refused
    (target / "file").unlink()
    os.sync()
    assert write_as_pod(neighbour / "more", SIZE // 4).errno == 0


@in_the_vm
def test_who_owns_the_root_can_leave_the_project_and_is_told_of(served: Served) -> None:
    """The threat model says so: project quotas do not hold against a hostile tenant."""
    volume = served.create("hostile", SIZE)
    target = served.publish(volume)
    move_to_project(target, 0)
    assert write_as_pod(target / "file", 2 * SIZE).errno == 0
    (problem,) = served.provisioner.volumes.health(volume.volume_id).problems
    assert "left project" in problem.message


@in_the_vm
def test_a_directory_below_the_root_that_left_is_found_by_the_walk(served: Served) -> None:
    volume = served.create("strays", SIZE)
    target = served.publish(volume)
    (target / "one" / "two").mkdir(parents=True)
    (target / "one" / "two").chmod(0o777)
    served.provisioner._escapes.run_once()
    assert served.provisioner.volumes.health(volume.volume_id).problems == ()
    move_to_project(target / "one" / "two", 0)
    assert write_as_pod(target / "one" / "two" / "file", 2 * SIZE).errno == 0
    assert served.provisioner.volumes.health(volume.volume_id).problems == ()  # a call does not walk
    served.provisioner._escapes.run_once()
    (problem,) = served.provisioner.volumes.health(volume.volume_id).problems
    assert (problem.status, problem.reason) == (HealthStatus.DEGRADED, "LimitEscaped")
    assert "1 of its directories left project" in problem.message
    (figures,) = served.provisioner.figures()
    assert figures.contents is not None
    assert (figures.contents.lost_limits, figures.contents.escaped_limits) == (0, 1)


@in_the_vm
def test_files_that_left_are_told_by_what_the_volume_holds(served: Served) -> None:
    volume = served.create("leak", SIZE)
    target = served.publish(volume)
    (target / "file").touch()
    move_to_project(target / "file", 0)
    (target / "file").chmod(0o666)
    assert write_as_pod(target / "file", 2 * SIZE).errno == 0
    served.provisioner._escapes.run_once()
    (problem,) = served.provisioner.volumes.health(volume.volume_id).problems
    assert problem.reason == "LimitEscaped"
    assert "files left project" in problem.message
    (target / "file").unlink()
    os.sync()
    served.provisioner._escapes.run_once()
    assert served.provisioner.volumes.health(volume.volume_id).problems == ()


@in_the_vm
def test_a_tenant_can_use_up_a_neighbours_limit_and_is_told_of(served: Served) -> None:
    """The threat model says so: ids follow each other, and who owns a file may give it any."""
    neighbour = served.publish(served.create("neighbour", SIZE))
    volume = served.create("hostile", SIZE)
    target = served.publish(volume)
    move_to_project(target, project_of(neighbour))
    assert write_as_pod(target / "file", 2 * SIZE).errno == served.means.refused
    found = write_as_pod(neighbour / "file", SIZE // 4)
    assert (found.errno, found.bytes < SIZE // 4) == (served.means.refused, True)
    (problem,) = served.provisioner.volumes.health(volume.volume_id).problems
    assert "left project" in problem.message
    (target / "file").unlink()
    until(lambda: write_as_pod(neighbour / "again", MIB).errno == 0)  # XFS frees what was unlinked a moment later


@in_the_vm
def test_hard_links_and_renames_take_nothing_out_of_the_limit(served: Served) -> None:
    """Neither goes from one project into another (EXDEV); a link within counts once."""
    first, second = served.publish(served.create("first", SIZE)), served.publish(served.create("second", SIZE))
    data = [served.control / "volumes" / name / "data" for name in ("first", "second")]
    assert write_as_pod(first / "file", SIZE // 2).errno == 0
    os.link(first / "file", first / "link")
    for move in (os.link, os.rename):
        with pytest.raises(OSError, match="cross-device"):
            move(data[0] / "file", data[1] / "file")
    os.rename(first / "link", first / "renamed")
    assert write_as_pod(first / "more", SIZE).errno == served.means.refused
    assert list(second.iterdir()) == []


@pytest.mark.parametrize(
    ("without", "how"),
    [
        (QUOTA_XFS, "mount it with -o prjquota"),
        (
            QUOTA_EXT4,
            "run 'tune2fs -O project,quota -Q prjquota' on the unmounted disk, then mount it with -o prjquota",
        ),
    ],
    ids=lambda found: found.kind if isinstance(found, Means) else "",
)
def test_the_refusal_is_one_sentence_that_says_what_to_do(tmp_path: Path, without: Means, how: str) -> None:
    plain = replace(without, options="", mkfs_options=())
    with plain.filesystem(tmp_path), serving(plain, tmp_path) as served:
        with pytest.raises(InvalidRequest) as refused:
            served.create("refused", SIZE, backend="quota")
        assert str(refused.value) == (
            f"parameter 'backend': pool 'default' cannot give 'quota': this {plain.kind} has no project quotas; {how}"
        )
        assert list((served.control / "volumes").iterdir()) == []


def test_a_pool_without_project_quotas_is_told_how_to_get_them(provisioner: Provisioner) -> None:
    asked = wanted("refused", SIZE, backend="quota")
    with pytest.raises(InvalidRequest, match=r"prjquota|wanted a pool on XFS or ext4"):
        provisioner.volumes.create(asked, PATIENT)
    assert provisioner.volumes.capacity(asked.parameters, (MULTI,)).available_bytes == 0
