"""Volumes that nobody wants, in a cluster with real pools: only what nobody ever used goes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi.cluster.api import ApiError
from csi.cluster.gone import ON_GONE_KEY
from csi.manifests import persistent_volume
from csi.pb import csi_pb2
from provisioner.survey import VolumeReport
from tests.grpc.test_cluster_routing import Code, creation
from tests.support.clustered import Cluster, clustered, eventually
from tests.support.fakes import refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

EVENTS = "/api/v1/namespaces/default/events"


def name(number: int) -> str:
    return f"pvc-{uid(number)}"


def uid(number: int) -> str:
    return f"5d0cbb1c-3bd6-4b3e-9bb0-{number:012x}"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with clustered() as cluster:
        cluster.add("a", "default")
        cluster.add("b", "default")
        cluster.control(orphan_age_seconds=0.001, node_gone_grace_seconds=0.001)
        yield cluster


def made(cluster: Cluster, number: int, node: str = "a") -> str:
    return cluster.controller.CreateVolume(creation(name(number), node)).volume.volume_id


def put_volume(cluster: Cluster, number: int, handle: str, attributes: dict[str, str] | None = None) -> None:
    csi = {"driver": "local-path.csi.dev", "volumeHandle": handle, "volumeAttributes": attributes or {}}
    body = {"metadata": {"name": name(number)}, "spec": {"csi": csi, "claimRef": {"uid": uid(number)}}}
    cluster.api.put(f"/api/v1/persistentvolumes/{name(number)}", body)


def put_claim(cluster: Cluster, number: int, volume: str = "") -> None:
    body = {"metadata": {"name": f"c{number}", "uid": uid(number)}, "spec": {"volumeName": volume}}
    cluster.api.put(f"/api/v1/namespaces/ns/persistentvolumeclaims/c{number}", body)


def left(cluster: Cluster) -> set[str]:
    reply = cluster.controller.ListVolumes(csi_pb2.ListVolumesRequest())
    return {entry.volume.volume_id for entry in reply.entries}


def events(cluster: Cluster) -> dict[str, str]:
    return {event["reason"]: event["message"] for event in cluster.api.objects(EVENTS)}


def test_only_what_nobody_wants_and_nobody_used_goes(cluster: Cluster) -> None:
    orphan, elsewhere = made(cluster, 1), made(cluster, 2, "b")
    with_volume, with_claim, used, six = (made(cluster, number) for number in (3, 4, 5, 6))
    named = cluster.controller.CreateVolume(creation("by-hand", "a")).volume.volume_id
    put_volume(cluster, 3, with_volume)
    put_claim(cluster, 4)
    put_claim(cluster, 6, "a-volume-of-another-driver")
    pool = Path(cluster.nodes["a"].folder) / "default/.csi-local-path/volumes"
    (pool / name(5) / "data/file").touch()
    cluster.controlling.sweep.sweep()
    assert left(cluster) == {with_volume, with_claim, used, named, six}
    assert not {orphan, elsewhere} & left(cluster)
    eventually(lambda: {"OrphansDiscarded", "OrphansFound"} <= set(events(cluster)))
    assert used in events(cluster)["OrphansFound"]
    assert (cluster.controlling.sweep.discarded, cluster.controlling.sweep.found) == (2, 3)


def test_a_claim_that_has_another_volume_does_not_want_this_one(cluster: Cluster) -> None:
    first, second = made(cluster, 1, "a"), f"{cluster.nodes['b'].pool_id()}.{name(1)}"
    put_volume(cluster, 1, second)
    put_claim(cluster, 1, name(1))
    cluster.controlling.sweep.sweep()
    assert first not in left(cluster)


def test_each_volume_that_goes_is_told_of_and_the_same_words_come_once(cluster: Cluster) -> None:
    used = made(cluster, 5)
    pool = Path(cluster.nodes["a"].folder) / "default/.csi-local-path/volumes"
    (pool / name(5) / "data/file").touch()
    gone = []
    for number in (1, 2):
        gone.append(made(cluster, number))
        cluster.controlling.sweep.sweep()
        cluster.controlling.sweep.sweep()

    def told() -> list[str]:
        return sorted(f"{event['reason']} {event['message'].split()[-1]}" for event in cluster.api.objects(EVENTS))

    wanted = sorted([f"OrphansDiscarded {volume_id}" for volume_id in gone] + [f"OrphansFound {used}"])
    eventually(lambda: told() == wanted, f"{wanted}, but {told()}")


def test_one_node_cannot_fill_the_cluster_with_events(cluster: Cluster) -> None:
    for number in range(100):
        cluster.controlling.events.warn_node("a", "PoolClaimedTwice", f"pool {number}")
    cluster.controlling.events.warn_node("b", "PoolClaimedTwice", "pool 0")
    eventually(lambda: any(event["involvedObject"]["name"] == "b" for event in cluster.api.objects(EVENTS)))
    assert len(cluster.api.objects(EVENTS)) == 21


def test_what_is_young_is_let_be_without_a_word(cluster: Cluster) -> None:
    cluster.controlling.sweep._age_s = 3600
    orphan = made(cluster, 1)
    cluster.controlling.sweep.sweep()
    assert left(cluster) == {orphan}
    assert not events(cluster)


def test_while_the_api_cannot_tell_everything_nothing_goes(cluster: Cluster) -> None:
    orphan = made(cluster, 1)
    cluster.api.failure = ApiError(503, "busy")
    with pytest.raises(ApiError):
        cluster.controlling.sweep.sweep()
    cluster.api.failure = None
    assert left(cluster) == {orphan}


def test_a_node_that_does_not_answer_is_left_out(cluster: Cluster) -> None:
    made(cluster, 1, "a")
    orphan = made(cluster, 2, "b")
    cluster.nodes["a"].agent.server.stop(None).wait()
    cluster.controlling.sweep.sweep()
    volumes = cluster.nodes["b"].provisioner.volumes.list(0, "").volumes
    assert orphan not in [volume.volume_id for volume in volumes]


def test_a_volume_of_a_node_that_is_gone_is_deleted_without_it(cluster: Cluster) -> None:
    volume = lost(cluster)
    delete(cluster, volume)
    eventually(lambda: "NodeGone" in events(cluster))
    assert left(cluster) == set()


def test_a_controller_that_does_not_lead_tells_of_it_too(cluster: Cluster) -> None:
    volume = lost(cluster)
    cluster.controlling.slots.stop()  # who leads the sidecars is settled by a Lease of theirs
    assert not cluster.controlling.is_leading()
    delete(cluster, volume)
    eventually(lambda: "NodeGone" in events(cluster))


def test_a_node_made_anew_that_waits_for_its_disk_may_have_the_volume(cluster: Cluster) -> None:
    node = cluster.nodes["a"]
    volume = cluster.controller.CreateVolume(creation(name(1), "a", onNodeGone="delete")).volume
    put_volume(cluster, 1, volume.volume_id, dict(volume.volume_context))
    node.stop()
    cluster.api.delete("/api/v1/nodes/a")
    cluster.api.put("/api/v1/nodes/a", {"metadata": {"name": "a", "uid": "another"}})
    disk = (node.folder / "default").rename(node.folder / "away")
    (node.folder / "default").mkdir()
    (node.folder / "default" / "no-pool").touch()
    node.start()
    eventually(lambda: cluster.controlling.directory.unfit() == "a")
    request = csi_pb2.DeleteVolumeRequest(volume_id=volume.volume_id)
    for _ in range(3):
        caught = refusal(cluster.controller.DeleteVolume, request)
        assert caught.code is Code.UNAVAILABLE
        assert "node a was made anew, but the disk of its pool 'default' is not there" in caught.message
    shutil.rmtree(node.folder / "default")
    disk.rename(node.folder / "default")
    delete(cluster, volume)
    assert left(cluster) == set()


def test_a_volume_taken_over_from_a_disk_goes_with_its_node_where_a_person_says_so(cluster: Cluster) -> None:
    volume = cluster.controller.CreateVolume(creation(name(1), "a")).volume
    report = VolumeReport(volume.volume_id, name(1), "", volume.capacity_bytes, None, None, "", "ok")
    printed = persistent_volume(report, "a", "local-path")
    path = f"/api/v1/persistentvolumes/{name(1)}"
    cluster.api.put(path, printed)
    lose(cluster)
    request = csi_pb2.DeleteVolumeRequest(volume_id=volume.volume_id)
    assert "kubectl annotate" in refusal(cluster.controller.DeleteVolume, request).message
    printed["metadata"]["annotations"][ON_GONE_KEY] = "delete"
    cluster.api.put(path, printed)
    delete(cluster, volume)
    eventually(lambda: "NodeGone" in events(cluster))


def lost(cluster: Cluster) -> csi_pb2.Volume:
    """Give a volume whose node is gone for good."""
    volume = cluster.controller.CreateVolume(creation(name(1), "a", onNodeGone="delete")).volume
    assert volume.volume_context[ON_GONE_KEY] == "delete"
    put_volume(cluster, 1, volume.volume_id, dict(volume.volume_context))
    lose(cluster)
    return volume


def lose(cluster: Cluster) -> None:
    """Let node a be gone for good."""
    cluster.nodes["a"].agent.stop()
    cluster.nodes["a"].agent.server.stop(None).wait()
    cluster.api.delete(cluster.nodes["a"].lease_path)
    cluster.api.delete("/api/v1/nodes/a")
    eventually(lambda: cluster.controlling.directory.node("a") is None)


def delete(cluster: Cluster, volume: csi_pb2.Volume) -> None:
    """Delete a volume, as often as it takes: the node must be known for a while to be gone."""
    request = csi_pb2.DeleteVolumeRequest(volume_id=volume.volume_id)

    def deleted() -> bool:
        return not isinstance(cluster.controller.DeleteVolume.future(request).exception(), Exception)

    eventually(deleted)
