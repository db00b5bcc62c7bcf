"""Kubernetes objects for volumes that are there: whole, bound to their claim, and of proper names alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from csi.manifests import claim_of, persistent_volume, unfit
from provisioner.survey import VolumeReport

ID = "0123456789abcdef.pvc-1"
VOLUME = VolumeReport(
    volume_id=ID,
    name="pvc-1",
    claim="shop/data-web-0",
    capacity_bytes=3 * 2**30,
    used_bytes=None,
    measured_at=None,
    created_at="2026-01-01T00:00:00Z",
    state="ok",
)


def test_a_persistent_volume_says_all_that_kubernetes_must_know() -> None:
    assert persistent_volume(VOLUME, "node-1", "local") == {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "pvc-1", "annotations": {"pv.kubernetes.io/provisioned-by": "local-path.csi.dev"}},
        "spec": {
            "capacity": {"storage": "3221225472"},
            "volumeMode": "Filesystem",
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "local",
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": "shop",
                "name": "data-web-0",
            },
            "csi": {"driver": "local-path.csi.dev", "volumeHandle": ID},
            "nodeAffinity": {
                "required": {
                    "nodeSelectorTerms": [
                        {
                            "matchExpressions": [
                                {"key": "topology.local-path.csi.dev/node", "operator": "In", "values": ["node-1"]}
                            ]
                        }
                    ]
                }
            },
        },
    }


def test_its_claim_asks_for_just_that_volume() -> None:
    assert claim_of(VOLUME, "local") == {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"namespace": "shop", "name": "data-web-0"},
        "spec": {
            "volumeName": "pvc-1",
            "volumeMode": "Filesystem",
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "local",
            "resources": {"requests": {"storage": "3221225472"}},
        },
    }


@pytest.mark.parametrize(("mode", "said"), [(0, "ReadWriteOnce"), (7, "ReadWriteOnce"), (6, "ReadWriteOncePod")])
def test_the_access_mode_is_what_the_claim_asked_for(mode: int, said: str) -> None:
    volume = replace(VOLUME, access_mode=mode)
    claim = claim_of(volume, "")
    assert claim is not None
    assert persistent_volume(volume, "n", "")["spec"]["accessModes"] == claim["spec"]["accessModes"] == [said]


def test_a_raw_block_volume_stays_one() -> None:
    volume = replace(VOLUME, block=True)
    claim = claim_of(volume, "")
    assert claim is not None
    assert persistent_volume(volume, "n", "")["spec"]["volumeMode"] == claim["spec"]["volumeMode"] == "Block"


@pytest.mark.parametrize("claim", ["", "shop", "shop/", "/data", "Shop/data", "shop/a_b", "a.b/data", f"{'n' * 64}/d"])
def test_what_can_be_no_claim_binds_to_none(claim: str) -> None:
    volume = replace(VOLUME, claim=claim)
    assert claim_of(volume, "") is None
    assert "claimRef" not in persistent_volume(volume, "n", "")["spec"]


@pytest.mark.parametrize("name", ["", "Data", "a b", "-a", "a/b", "a..b", "x" * 254, "a\n"])
def test_what_can_be_no_name_is_told(name: str) -> None:
    assert repr(name) in unfit(replace(VOLUME, name=name))


def test_what_is_broken_is_told_and_trash_is_not() -> None:
    assert unfit(replace(VOLUME, state="quarantined", reason="no record")) == "no record"
    assert unfit(replace(VOLUME, state="trash", name="")) == ""
    assert unfit(VOLUME) == unfit(replace(VOLUME, name="a.b-c.1")) == ""
