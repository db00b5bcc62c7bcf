"""What the services count on: one body for the fake domain and the real one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from csi.services.domain import Provisioner
from provisioner.errors import BadToken, CapacityOutOfRange, TargetNotFound, VolumeConflict, VolumeNotFound
from provisioner.model import AccessMode, CapacityRange, HealthStatus
from tests.support.fakes import FakeProvisioner
from tests.support.provisioned import MIB, MULTI, PATIENT, at, running, settings_for, unmount_below, wanted


@dataclass
class Domain:
    """A domain under test, and a folder whose paths are good targets."""

    services: Provisioner
    targets: Path


@pytest.fixture(params=["fake", "real"])
def domain(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Domain]:
    """Give the fake, then the real thing."""
    if request.param == "fake":
        yield Domain(FakeProvisioner(), tmp_path)
        return
    with running(settings_for(tmp_path)) as provisioner:
        yield Domain(provisioner, tmp_path / "targets")
        unmount_below(tmp_path)


def test_a_retry_finds_the_volume(domain: Domain) -> None:
    volumes = domain.services.volumes
    first = volumes.create(wanted("pvc-1", 2 * MIB), PATIENT)
    assert first.capacity_bytes == 2 * MIB
    assert first.name == "pvc-1"
    assert volumes.create(wanted("pvc-1", MIB, limit=3 * MIB), PATIENT) == first
    assert volumes.get(first.volume_id) == first


@pytest.mark.parametrize("other", [CapacityRange(3 * MIB), CapacityRange(MIB, MIB)])
def test_the_same_name_with_another_size_is_a_conflict(domain: Domain, other: CapacityRange) -> None:
    domain.services.volumes.create(wanted("pvc-1", 2 * MIB), PATIENT)
    with pytest.raises(VolumeConflict):
        domain.services.volumes.create(replace(wanted("pvc-1"), capacity=other), PATIENT)


def test_a_range_without_a_size_is_out_of_range(domain: Domain) -> None:
    with pytest.raises(CapacityOutOfRange):
        domain.services.volumes.create(wanted("pvc-1", 2 * MIB, limit=MIB), PATIENT)


def test_without_a_size_there_is_a_default(domain: Domain) -> None:
    assert domain.services.volumes.create(wanted("pvc-1", 0), PATIENT).capacity_bytes == 2**30


def test_delete_ends_in_absence_however_often(domain: Domain) -> None:
    volumes = domain.services.volumes
    made = volumes.create(wanted("pvc-1"), PATIENT)
    for _ in range(2):
        volumes.delete(made.volume_id, PATIENT)
    volumes.delete("never-ours", PATIENT)
    with pytest.raises(VolumeNotFound):
        volumes.get(made.volume_id)


def test_volumes_grow_and_never_shrink(domain: Domain) -> None:
    volumes = domain.services.volumes
    made = volumes.create(wanted("pvc-1", 2 * MIB), PATIENT)
    assert volumes.expand(made.volume_id, CapacityRange(4 * MIB), MULTI, PATIENT).capacity_bytes == 4 * MIB
    assert volumes.expand(made.volume_id, CapacityRange(MIB), None, PATIENT).capacity_bytes == 4 * MIB
    with pytest.raises(VolumeNotFound):
        volumes.expand("never-ours", CapacityRange(MIB), None, PATIENT)


def test_pages_go_on_after_the_last_entry_even_if_it_is_gone(domain: Domain) -> None:
    volumes = domain.services.volumes
    ids = sorted(volumes.create(wanted(f"pvc-{i}"), PATIENT).volume_id for i in range(3))
    first = volumes.list(2, "")
    assert [volume.volume_id for volume in first.volumes] == ids[:2]
    volumes.delete(ids[1], PATIENT)
    second = volumes.list(2, first.next_token)
    assert ([volume.volume_id for volume in second.volumes], second.next_token) == (ids[2:], "")
    with pytest.raises(BadToken):
        volumes.list(0, "invalid-token")


def test_a_volume_that_is_well_has_no_problems(domain: Domain) -> None:
    volumes = domain.services.volumes
    made = volumes.create(wanted("pvc-1"), PATIENT)
    assert volumes.health(made.volume_id).problems == ()
    assert volumes.list_health(0, "").volumes == []
    assert list(volumes.storage_health()) == []
    assert volumes.validate(made.volume_id, (MULTI,), {}) == ""
    assert volumes.capacity({}, ()).available_bytes > 0
    with pytest.raises(VolumeNotFound):
        volumes.health("never-ours")


def test_a_publication_has_figures_until_it_ends(domain: Domain) -> None:
    services = domain.services
    volume_id = services.volumes.create(wanted("pvc-1", 2 * MIB), PATIENT).volume_id
    target = str(domain.targets / "pod")
    services.publishing.stage(volume_id, str(domain.targets / "staged"), MULTI)
    services.publishing.publish(at(volume_id, target), PATIENT)
    assert services.publishing.statistics(volume_id, target).bytes.total == 2 * MIB
    assert services.publishing.expand(volume_id, target, CapacityRange(2 * MIB)) == 2 * MIB
    assert services.publishing.health(volume_id, target).problems == ()
    for _ in range(2):
        services.publishing.unpublish(volume_id, target, PATIENT)
    services.publishing.unstage(volume_id, str(domain.targets / "staged"))
    with pytest.raises(TargetNotFound):
        services.publishing.statistics(volume_id, target)


def test_what_is_not_there_cannot_be_used(domain: Domain) -> None:
    target = str(domain.targets / "pod")
    with pytest.raises(VolumeNotFound):
        domain.services.publishing.publish(at("never-ours", target), PATIENT)
    with pytest.raises(VolumeNotFound):
        domain.services.publishing.stage("never-ours", target, MULTI)
    domain.services.publishing.unpublish("never-ours", target, PATIENT)


def test_numbers_of_enums_are_those_of_the_interface() -> None:
    assert AccessMode.SINGLE_NODE_MULTI_WRITER.value == 7
    assert [status.value for status in HealthStatus] == [1, 2, 3]
