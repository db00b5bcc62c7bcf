"""Whose project ids are, where tenants change them: on a real XFS, whose quotas a class stands in for."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from provisioner import records
from provisioner.backends import quota
from provisioner.errors import CapacityOutOfRange, OutOfCapacity
from provisioner.linux.quotactl import FS_QUOTA_PDQ_ACCT, FS_QUOTA_PDQ_ENFD, ProjectQuota
from provisioner.model import CapacityRange, HealthStatus
from provisioner.pools import Pools
from provisioner.settings import Settings
from provisioner.survey import survey
from tests.support.disks import until
from tests.support.means import QUOTA_XFS, Served, serving
from tests.support.projects import move_to_project, project_of
from tests.support.provisioned import MULTI, PATIENT
from tests.support.trees import directory_fd

MIB = 2**20
MEANS = replace(QUOTA_XFS, options="")


class Projects:
    """The kernel's table of project quotas: it counts inodes and keeps limits, but holds nobody to them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.are_on = True
        self.limits: dict[int, tuple[int, int]] = {}

    def project_state(self, _fd: int) -> int:
        """Say what quotas are on."""
        return FS_QUOTA_PDQ_ACCT | FS_QUOTA_PDQ_ENFD if self.are_on else 0

    def get_quota(self, _fd: int, project_id: int) -> ProjectQuota:
        """Give one project; ENOENT where nothing has it."""
        if project_id not in self._known():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        limit_bytes, limit_inodes = self.limits.get(project_id, (0, 0))
        used = self._used().count(project_id)
        return ProjectQuota(project_id, limit_bytes, limit_inodes, used * 4096, used)

    def get_next_quota(self, fd: int, project_id: int) -> ProjectQuota:
        """Give the first known project from an id on."""
        later = [known for known in self._known() if known >= project_id]
        return self.get_quota(fd, min(later, default=project_id))

    def set_limits(self, _fd: int, project_id: int, limit_bytes: int, limit_inodes: int) -> None:
        """Set limits, or take them away."""
        self.limits[project_id] = (limit_bytes, limit_inodes)
        if not limit_bytes:
            del self.limits[project_id]

    def _known(self) -> set[int]:
        return self.limits.keys() | set(self._used())

    def _used(self) -> list[int]:
        found = []
        for folder, _, files in os.walk(self._root):
            with suppress(FileNotFoundError):  # the eraser was there first
                found += [project_of(Path(folder, name)) for name in (".", *files)]
        return found


@pytest.fixture
def projects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Projects]:
    """An XFS, and the table in the place of its kernel's."""
    with MEANS.filesystem(tmp_path) as path:
        table = Projects(path)
        for call in (table.project_state, table.get_quota, table.get_next_quota, table.set_limits):
            monkeypatch.setattr(quota, call.__name__, call)
        yield table


@pytest.fixture
def served(projects: Projects, tmp_path: Path) -> Iterator[Served]:
    assert projects.limits == {}
    with serving(MEANS, tmp_path) as found:
        yield found


def test_quotas_that_are_off_are_told_of_each_volume(served: Served, projects: Projects) -> None:
    volumes = [served.create(name, MIB) for name in ("one", "two")]
    projects.are_on = False
    for volume in volumes:
        (problem,) = served.provisioner.volumes.health(volume.volume_id).problems
        assert (problem.status, problem.reason) == (HealthStatus.DEGRADED, "LimitLost")
        assert "-o prjquota" in problem.message
    projects.are_on = True
    assert served.provisioner.volumes.list_health(0, "").volumes == []


def quotas_of(served: Served) -> quota.QuotaBackend:
    """Give the means itself."""
    contents = served.provisioner._pools.pools[0].known
    assert contents is not None
    found = contents.backends._means["quota"]
    assert isinstance(found, quota.QuotaBackend)
    return found


def is_free(projects: Projects, project_id: int) -> bool:
    """Tell whether nothing limits a project any more."""
    return project_id not in projects.limits


def test_a_deleted_volume_gives_back_its_own_id_whatever_its_tenant_made_of_its_root(
    served: Served, projects: Projects
) -> None:
    """Not that of the neighbour, which one root had at its end; and one that was in no project keeps none."""
    served.create("neighbour", MIB)
    theirs = project_of(served.control / "volumes/neighbour/data")
    for chosen in (theirs, 0):
        volume = served.create("hostile", MIB)
        root = served.control / "volumes/hostile/data"
        ours = project_of(root)
        move_to_project(root, chosen)
        served.provisioner.volumes.delete(volume.volume_id, PATIENT)
        until(partial(is_free, projects, ours))
        assert theirs not in quotas_of(served)._leaving
    assert projects.limits.keys() == {theirs}


def test_an_entry_whose_data_went_before_gives_back_no_id(served: Served, tmp_path: Path) -> None:
    """Another volume may be about to have it."""
    served.create("next", MIB)
    entry = tmp_path / "entry"
    entry.mkdir()
    shutil.copy(served.control / "volumes/next" / records.FILE, entry)
    with directory_fd(entry) as entry_fd:
        assert quotas_of(served).dismantle(entry_fd)
        assert quotas_of(served)._leaving == set()
        (entry / "data").mkdir()
        assert quotas_of(served).dismantle(entry_fd)
    assert quotas_of(served)._leaving == {project_of(served.control / "volumes/next/data")}


def test_sizes_are_whole_blocks_from_the_first_to_the_last_growth(served: Served, projects: Projects) -> None:
    """As `df` and the limit have them; a size that may not be rounded up to one is refused."""
    volume = served.create("decimal", 10**8)
    assert volume.capacity_bytes == 24415 * 4096
    project = project_of(served.control / "volumes/decimal/data")
    assert projects.limits[project] == (24415 * 4096, 24415 * 4096 // 16384)
    assert served.create("decimal", 10**8) == volume
    grown = served.provisioner.volumes.expand(volume.volume_id, CapacityRange(2 * 10**8), MULTI, PATIENT)
    assert grown.capacity_bytes == 48829 * 4096
    assert projects.limits[project] == (48829 * 4096, 48829 * 4096 // 16384)
    with pytest.raises(CapacityOutOfRange, match="a multiple of 4096"):
        served.provisioner.volumes.create(MEANS.wanted("exact", 10**8, limit=10**8), PATIENT)
    with pytest.raises(CapacityOutOfRange, match="a multiple of 4096"):
        served.provisioner.volumes.expand(volume.volume_id, CapacityRange(3 * 10**8, 3 * 10**8), MULTI, PATIENT)


def test_a_limit_of_inodes_that_was_taken_away_is_told_and_set_again(projects: Projects, tmp_path: Path) -> None:
    with serving(MEANS, tmp_path) as served:
        volume = served.create("loose", MIB, inodes="100")
        project = project_of(served.control / "volumes/loose/data")
        projects.limits[project] = (MIB, 0)
        (problem,) = served.provisioner.volumes.health(volume.volume_id).problems
        assert problem.reason == "LimitLost"
        assert "the limit of inodes is 0, wanted 100" in problem.message
    with serving(MEANS, tmp_path) as served:
        assert served.provisioner.volumes.health(volume.volume_id).problems == ()
        assert projects.limits[project] == (MIB, 100)


def test_what_a_start_has_mended_is_told_no_more(projects: Projects, tmp_path: Path) -> None:
    """Also before the measurer, which reads all files first, has come to it."""
    with serving(MEANS, tmp_path) as served:
        served.create("loose", MIB)
        projects.limits.clear()
        served.provisioner._measurer.run_once()
        assert states(served.settings) == ["degraded"]
    pools = Pools(served.settings)
    pools.lock()
    try:
        pools.load()
        assert states(served.settings) == ["ok"]
    finally:
        pools.close()


def states(settings: Settings) -> list[str]:
    """Tell how volumes are, as people are shown it."""
    return [volume.state for volume in survey(settings)[0].volumes]


def test_an_id_that_the_filesystem_does_not_keep_makes_no_volume_and_leaves_no_limit(
    served: Served, projects: Projects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some kernels take a project for a directory and forget it: the limit would bind nothing."""

    def forget(*_: object) -> None:
        assert len(projects.limits) == 1

    with monkeypatch.context() as patch:
        patch.setattr(quota, "set_fsxattr", forget)
        with pytest.raises(OSError, match=r"the project id \d+ was not kept"):
            served.create("forgotten", MIB)
    assert os.listdir(served.control / "volumes") == []
    until(lambda: projects.limits == {})


def test_what_was_never_finished_gives_its_id_back(
    served: Served, projects: Projects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no record, so that its directory alone tells."""

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(records, "write", fail)
        with pytest.raises(OutOfCapacity):
            served.create("unfinished", MIB)
    assert projects.limits
    until(lambda: projects.limits == {})


def test_an_id_that_a_strangers_file_had_is_not_taken_before_it_was_given_back(
    projects: Projects, tmp_path: Path
) -> None:
    """Else the new volume would lose its limit with the first look at which nothing is in its project."""
    stray = tmp_path / "xfs" / "stray"
    with serving(MEANS, tmp_path) as served:
        served.create("first", MIB)
        stray.touch()
        move_to_project(stray, project_of(served.control / "volumes/first/data") + 1)
    with serving(MEANS, tmp_path) as served:
        stray.unlink()
        served.create("second", MIB)
        assert project_of(served.control / "volumes/second/data") not in quotas_of(served)._leaving
        until(lambda: not quotas_of(served)._leaving)
    assert len(projects.limits) == 2
