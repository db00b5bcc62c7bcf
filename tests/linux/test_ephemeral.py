"""Ephemeral volumes of pods: made by a publication, gone with it, and swept where no call ends them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from provisioner import pod_sweep, pools
from provisioner.assembly import Provisioner
from provisioner.errors import (
    InvalidRequest,
    OutOfCapacity,
    OverLimit,
    ProvisionerError,
    TargetNotFound,
    TargetOccupied,
    Unsupported,
    VolumeConflict,
    VolumeInUse,
    VolumeNotFound,
)
from provisioner.identity import init_pool
from provisioner.linux.mount import MS_BIND, mount
from provisioner.model import AccessMode, Capability
from provisioner.settings import Settings
from provisioner.survey import survey
from tests.support.disks import bind, is_reachable, pull, two_pools, until
from tests.support.filesystems import tmpfs
from tests.support.inline import Pod, allowing
from tests.support.provisioned import MIB, PATIENT, SINGLE, at, running, unmount_below, wanted


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Allow ephemeral volumes."""
    return allowing(settings)


@pytest.fixture
def pod(targets: Path) -> Pod:
    """A pod whose folder is there."""
    return Pod(targets)


def volumes(control: Path) -> list[str]:
    return os.listdir(control / "volumes")


def sizes(provisioner: Provisioner) -> list[int]:
    return [volume.capacity_bytes for volume in provisioner.volumes.list(0, "").volumes]


def test_it_comes_with_its_publication_and_goes_with_it(provisioner: Provisioner, pod: Pod, control: Path) -> None:
    for _ in range(2):
        provisioner.publishing.publish(pod.wants(size="2Mi"), PATIENT)
    assert sizes(provisioner) == [2 * MIB]
    assert pod.target().stat().st_mode & 0o7777 == 0o777
    (pod.target() / "file").write_text("hello")
    provisioner.publishing.publish(pod.wants(size="2Mi"), PATIENT)
    assert (pod.target() / "file").read_text() == "hello"
    for _ in range(2):
        provisioner.publishing.unpublish(pod.volume_id(), str(pod.target()), PATIENT)
        assert not pod.target().exists()
        assert volumes(control) == []
    assert os.listdir(control / "published") == []


def test_figures_and_health_are_told_under_the_kubelet_s_name(provisioner: Provisioner, pod: Pod) -> None:
    provisioner.publishing.publish(pod.wants(size="2Mi"), PATIENT)
    found = provisioner.publishing.statistics(pod.volume_id(), str(pod.target()))
    assert found.bytes.total == 2 * MIB
    health = provisioner.publishing.health(pod.volume_id(), str(pod.target()))
    assert (health.volume_id, health.problems) == (pod.volume_id(), ())
    with pytest.raises(TargetNotFound):
        provisioner.publishing.statistics(pod.volume_id(), str(pod.target("other")))
    with pytest.raises(VolumeNotFound):
        provisioner.publishing.statistics(pod.volume_id("other"), str(pod.target()))
    (figures,) = provisioner.figures()
    assert figures.contents is not None
    assert figures.contents.ephemeral == 1


def test_one_that_is_read_only_refuses_writes(provisioner: Provisioner, pod: Pod) -> None:
    provisioner.publishing.publish(pod.wants(readonly=True), PATIENT)
    with pytest.raises(OSError, match="Read-only"):
        (pod.target() / "file").touch()


def test_people_see_whose_it_is(provisioner: Provisioner, pod: Pod, settings: Settings) -> None:
    provisioner.publishing.publish(pod.wants(), PATIENT)
    (report,) = survey(settings)[0].volumes
    assert (report.name, report.pod) == (pod.volume_id(), "default/web-0")


@pytest.mark.parametrize(("size", "given"), [("", 8 * MIB), ("1", 1), ("8Mi", 8 * MIB), (" 1Mi", MIB)])
def test_the_size_is_the_pod_s_or_the_pool_s_within_the_limit(
    provisioner: Provisioner, pod: Pod, size: str, given: int
) -> None:
    provisioner.publishing.publish(pod.wants(size=size), PATIENT)
    assert sizes(provisioner) == [given]


@pytest.mark.parametrize("size", ["9Mi", "0", "-1", "much", "1e3", "8388609", "9" * 400])
def test_other_sizes_are_refused(provisioner: Provisioner, pod: Pod, size: str, control: Path) -> None:
    with pytest.raises(InvalidRequest, match="volume attribute 'size'"):
        provisioner.publishing.publish(pod.wants(size=size), PATIENT)
    assert volumes(control) == []


def test_a_pod_has_its_limit_and_another_pod_its_own(provisioner: Provisioner, pod: Pod) -> None:
    provisioner.publishing.publish(pod.wants("a", size="8Mi"), PATIENT)
    provisioner.publishing.publish(pod.wants("b", size="4Mi"), PATIENT)
    with pytest.raises(OverLimit, match=r"the pod has 12582912 already .* \(ephemeral.maxSizePerPod\)"):
        provisioner.publishing.publish(pod.wants("c", size="1"), PATIENT)
    other = Pod(pod.root, uid="other", name="web-1")
    provisioner.publishing.publish(other.wants("c", size="8Mi"), PATIENT)
    provisioner.publishing.unpublish(pod.volume_id("b"), str(pod.target("b")), PATIENT)
    provisioner.publishing.publish(pod.wants("c", size="4Mi"), PATIENT)


def test_the_limit_of_a_pod_holds_after_a_restart_and_for_many_at_once(settings: Settings, pod: Pod) -> None:
    with running(settings) as provisioner:
        provisioner.publishing.publish(pod.wants("a", size="8Mi"), PATIENT)
    with running(settings) as provisioner, ThreadPoolExecutor(8) as callers:
        wishes = [pod.wants(f"b{i}", size="1Mi") for i in range(8)]
        done = list(callers.map(lambda wish: _is_published(provisioner, wish), wishes))
        assert sum(done) == 4
        assert sum(sizes(provisioner)) == 12 * MIB


def _is_published(provisioner: Provisioner, wish: object) -> bool:
    try:
        provisioner.publishing.publish(wish, PATIENT)  # type: ignore[arg-type] # a Publication
    except OverLimit:
        return False
    return True


def test_a_try_that_failed_counts_for_nothing(provisioner: Provisioner, pod: Pod, control: Path) -> None:
    pod.wants()
    pod.target().write_text("in the way")
    for _ in range(3):
        with pytest.raises(TargetOccupied):
            provisioner.publishing.publish(pod.wants(size="8Mi"), PATIENT)
    assert volumes(control) == []
    pod.target().unlink()
    provisioner.publishing.publish(pod.wants(size="8Mi"), PATIENT)


def test_they_are_off_until_allowed_and_those_that_are_there_stay_usable(
    settings: Settings, pod: Pod, control: Path
) -> None:
    with running(settings) as provisioner:
        provisioner.publishing.publish(pod.wants("a"), PATIENT)
    unmount_below(pod.root)  # as after a reboot
    with running(allowing(settings, allow=False)) as provisioner:
        with pytest.raises(Unsupported, match=r"ephemeral\.allow"):
            provisioner.publishing.publish(pod.wants("b"), PATIENT)
        provisioner.publishing.publish(pod.wants("a"), PATIENT)
        provisioner.publishing.unpublish(pod.volume_id("a"), str(pod.target("a")), PATIENT)
        assert volumes(control) == []


def test_what_is_no_request_for_one_makes_none(
    provisioner: Provisioner, pod: Pod, targets: Path, control: Path
) -> None:
    block = Capability(AccessMode.SINGLE_NODE_WRITER, block=True)
    shared = Capability(AccessMode.MULTI_NODE_MULTI_WRITER)
    nobody = Pod(targets, uid="")
    outside = Pod(targets.parent / "elsewhere")
    for wish in (pod.wants(capability=block), pod.wants(capability=shared), nobody.wants(), outside.wants()):
        with pytest.raises(ProvisionerError):
            provisioner.publishing.publish(wish, PATIENT)
    assert volumes(control) == []


def test_the_administrator_names_the_pool(settings: Settings, tmp_path: Path, pod: Pod, control: Path) -> None:
    both = two_pools(settings, tmp_path)
    with running(allowing(both, pool="second")) as provisioner:
        provisioner.publishing.publish(pod.wants(), PATIENT)
        assert volumes(control) == []
    with running(allowing(both, pool="default")) as provisioner:  # it is found where it is
        provisioner.publishing.unpublish(pod.volume_id(), str(pod.target()), PATIENT)
        assert os.listdir(tmp_path / "second/.csi-local-path/volumes") == []


def test_no_room_is_no_volume(settings: Settings, pod: Pod, control: Path) -> None:
    with running(allowing(settings, max_size_per_volume="1024Pi", max_size_per_pod="2048Pi")) as provisioner:
        with pytest.raises(OutOfCapacity):
            provisioner.publishing.publish(pod.wants(size="1024Pi"), PATIENT)
        assert volumes(control) == []


def test_a_volume_with_a_claim_is_never_taken_for_one(provisioner: Provisioner, pod: Pod, targets: Path) -> None:
    """Neither its name nor its id, given as an ephemeral volume's, publishes or deletes it."""
    claimed = provisioner.volumes.create(wanted(pod.volume_id()), PATIENT)
    provisioner.publishing.publish(at(claimed.volume_id, targets / "claimed", SINGLE), PATIENT)
    (targets / "claimed/file").write_text("precious")
    with pytest.raises(VolumeConflict, match="not ephemeral"):
        provisioner.publishing.publish(pod.wants(), PATIENT)
    with pytest.raises(TargetOccupied):
        provisioner.publishing.unpublish(pod.volume_id(), str(targets / "claimed"), PATIENT)
    provisioner.publishing.unpublish(pod.volume_id(), str(pod.target()), PATIENT)
    assert (targets / "claimed/file").read_text() == "precious"
    assert provisioner.volumes.get(claimed.volume_id) == claimed


def test_one_cannot_be_had_or_deleted_by_the_controller(provisioner: Provisioner, pod: Pod) -> None:
    provisioner.publishing.publish(pod.wants(size="2Mi"), PATIENT)
    with pytest.raises(VolumeConflict, match="ephemeral"):
        provisioner.volumes.create(wanted(pod.volume_id(), 2 * MIB, mode="0777"), PATIENT)
    (volume,) = provisioner.volumes.list(0, "").volumes
    unmount_below(pod.root)
    with pytest.raises(VolumeInUse, match="ends with pod default/web-0"):
        provisioner.volumes.delete(volume.volume_id, PATIENT)


def test_it_has_one_place(provisioner: Provisioner, pod: Pod) -> None:
    provisioner.publishing.publish(pod.wants(), PATIENT)
    other = Pod(pod.root, uid="other")
    wish = other.wants()
    with pytest.raises(VolumeConflict, match="belongs at"):
        provisioner.publishing.publish(
            type(wish)(pod.volume_id(), wish.target_path, "", wish.capability, readonly=False, inline=wish.inline),
            PATIENT,
        )


def test_an_id_with_a_pool_is_no_pod_s(provisioner: Provisioner, pod: Pod) -> None:
    claimed = provisioner.volumes.create(wanted("pvc-1"), PATIENT)
    wish = pod.wants()
    with pytest.raises(InvalidRequest, match="is that of a volume with a claim"):
        provisioner.publishing.publish(
            type(wish)(claimed.volume_id, wish.target_path, "", wish.capability, readonly=False, inline=wish.inline),
            PATIENT,
        )


def test_unpublishing_a_broken_one_leaves_its_data(settings: Settings, pod: Pod, control: Path) -> None:
    with running(settings) as provisioner:
        provisioner.publishing.publish(pod.wants(), PATIENT)
    (control / "volumes" / pod.volume_id() / "volume.json").write_text("{")
    with running(settings) as provisioner:
        provisioner.publishing.unpublish(pod.volume_id(), str(pod.target()), PATIENT)
        assert not pod.target().exists()
        assert volumes(control) == [pod.volume_id()]


def test_what_is_not_ours_at_a_target_is_left_alone(provisioner: Provisioner, pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/file").touch()
    pod.target().mkdir(parents=True)
    mount(tmp_path / "foreign", pod.target(), flags=MS_BIND)
    with pytest.raises(VolumeConflict):
        provisioner.publishing.publish(pod.wants(), PATIENT)
    with pytest.raises(TargetOccupied):
        provisioner.publishing.unpublish(pod.volume_id(), str(pod.target()), PATIENT)
    assert (pod.target() / "file").exists()
    assert sizes(provisioner) == []


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A pool on a filesystem of its own, that comes and goes."""
    monkeypatch.setattr(pools, "_LOOK_AGAIN_S", 0.05)
    with tmpfs(tmp_path / "disk") as path:
        init_pool(str(path))
        yield path


def test_a_pod_can_go_while_the_disk_is_away(settings: Settings, disk: Path, pod: Pod) -> None:
    path = Path(settings.pools[0].path)
    bind(disk, path)
    with running(settings) as provisioner:
        provisioner.publishing.publish(pod.wants(), PATIENT)
        pull(path)
        provisioner.publishing.unpublish(pod.volume_id(), str(pod.target()), PATIENT)
        assert not pod.target().exists()
        pod.forgotten()
        bind(disk, path)
        until(lambda: is_reachable(provisioner.volumes))
        assert sizes(provisioner)
        for _ in range(2):
            provisioner.pod_sweep.run_once()
        assert sizes(provisioner) == []


def test_a_pod_can_go_whose_disk_was_never_there(settings: Settings, disk: Path, pod: Pod) -> None:
    path = Path(settings.pools[0].path)
    bind(disk, path)
    with running(settings) as provisioner:
        provisioner.publishing.publish(pod.wants(), PATIENT)
    pull(path)
    with running(settings) as provisioner:
        provisioner.publishing.unpublish(pod.volume_id(), str(pod.target()), PATIENT)
        assert not pod.target().exists()


def test_the_sweep_ends_what_has_neither_mount_nor_pod(settings: Settings, pod: Pod) -> None:
    other = Pod(pod.root, uid="stays")
    with running(settings) as provisioner:
        for wish in (pod.wants("a"), other.wants("a")):
            provisioner.publishing.publish(wish, PATIENT)
        provisioner.volumes.create(wanted("pvc-1"), PATIENT)
    unmount_below(pod.root)
    with running(settings) as provisioner:
        provisioner.pod_sweep.run_once()
        provisioner.pod_sweep.run_once()
        assert len(sizes(provisioner)) == 3, "both pods are there: a reboot takes mounts away, not pods"
        pod.forgotten()
        provisioner.pod_sweep.run_once()
        assert len(sizes(provisioner)) == 3, "seen once"
        provisioner.pod_sweep.run_once()
        names = [volume.name for volume in provisioner.volumes.list(0, "").volumes]
        assert sorted(names) == sorted([other.volume_id("a"), "pvc-1"])
        provisioner.publishing.publish(other.wants("a"), PATIENT)


def test_the_sweep_spares_what_is_mounted_and_what_it_cannot_judge(settings: Settings, pod: Pod, targets: Path) -> None:
    with running(settings) as provisioner:
        provisioner.publishing.publish(pod.wants("mounted", "1Mi"), PATIENT)
        provisioner.publishing.publish(pod.wants("unmounted", "1Mi"), PATIENT)
        provisioner.publishing.publish(Pod(targets, uid="web").wants("elsewhere"), PATIENT)
    (targets / "pods").rename(targets / "aside")  # as if the kubelet's own disk were not there
    with running(settings) as provisioner:
        for _ in range(3):
            provisioner.pod_sweep.run_once()
        assert len(sizes(provisioner)) == 3
    (targets / "aside").rename(targets / "pods")


def test_the_sweep_runs_by_itself(settings: Settings, pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_sweep, "_SWEEP_S", 0.01)
    with running(settings) as provisioner:
        provisioner.publishing.publish(pod.wants(), PATIENT)
    unmount_below(pod.root)
    pod.forgotten()
    with running(settings) as provisioner:
        until(lambda: sizes(provisioner) == [])
