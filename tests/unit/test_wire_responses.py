"""Responses stay within the limits that hold for plugins, too."""

from __future__ import annotations

from csi.pb import csi_pb2
from csi.wire import responses
from csi.wire.topology import topology_of
from provisioner.listing import MAX_PAGE
from provisioner.model import (
    HealthPage,
    HealthProblem,
    HealthStatus,
    Page,
    Statistics,
    StorageProblem,
    StorageStatus,
    Usage,
    Volume,
    VolumeHealth,
)

GRPC_BYTES = 4 << 20  # what a client accepts by default


def test_the_longest_page_of_volumes_fits_one_answer() -> None:
    volume = Volume("x" * 128, "n", 2**63 - 1)
    page = Page([volume] * MAX_PAGE, "t" * 128)
    assert responses.volumes(page, topology_of("n" * 63)).ByteSize() < GRPC_BYTES


def test_the_longest_page_of_health_fits_one_answer() -> None:
    problems = tuple(HealthProblem(status, "R" * 60, "m" * 5000) for status in HealthStatus)
    page = HealthPage([VolumeHealth("x" * 128, problems)] * MAX_PAGE, "t" * 128)
    assert responses.health_page(page).ByteSize() < GRPC_BYTES


def test_each_status_of_a_volume_has_its_number() -> None:
    problems = tuple(HealthProblem(status, "R", "m") for status in HealthStatus)
    found = responses.health(VolumeHealth("v", problems))
    assert [csi_pb2.VolumeHealthErrorType.Name(entry.status) for entry in found.health_statuses] == [
        status.name for status in HealthStatus
    ]


def test_each_status_of_a_pool_has_its_number() -> None:
    found = responses.storage_health(StorageProblem(status, "R", "m") for status in StorageStatus)
    assert [csi_pb2.StorageHealthErrorType.Name(entry.status) for entry in found.backend_health] == [
        f"STORAGE_{status.name}" for status in StorageStatus
    ]


def test_a_status_and_reason_is_told_once() -> None:
    """The spec forbids the same pair twice, and two pools may well be gone for one reason."""
    problems = [
        StorageProblem(StorageStatus.UNREACHABLE, "PoolUnavailable", "pool a: not mounted"),
        StorageProblem(StorageStatus.DEGRADED, "PoolUnavailable", "pool b: read-only"),
        StorageProblem(StorageStatus.UNREACHABLE, "PoolUnavailable", "pool c: not mounted"),
    ]
    found = responses.storage_health(problems).backend_health
    assert [(entry.status, entry.message) for entry in found] == [
        (csi_pb2.STORAGE_UNREACHABLE, "pool a: not mounted; pool c: not mounted"),
        (csi_pb2.STORAGE_DEGRADED, "pool b: read-only"),
    ]


def test_long_texts_are_cut_at_a_character() -> None:
    message = responses.unconfirmed("é" * 100).message
    assert message == "é" * 62 + "..."
    assert len(message.encode()) <= 128


def test_texts_of_any_bytes_can_be_sent() -> None:
    name = b"/pool/\xff".decode(errors="surrogateescape")
    assert responses.unconfirmed(name).message == "/pool/\\udcff"


def test_inodes_are_told_where_there_are_any() -> None:
    bytes_ = Usage(total=10, used=3, available=7)
    alone = responses.statistics(Statistics(bytes_, None)).usage
    both = responses.statistics(Statistics(bytes_, Usage(5, 1, 4))).usage
    assert [(u.unit, u.total, u.used, u.available) for u in alone] == [(1, 10, 3, 7)]
    assert [(u.unit, u.total, u.used, u.available) for u in both] == [(1, 10, 3, 7), (2, 5, 1, 4)]
