"""Kubernetes objects for volumes that are there already, as plain data."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from csi.services.identity import NAME
from csi.wire.topology import KEY
from provisioner.model import AccessMode

if TYPE_CHECKING:
    from provisioner.survey import VolumeReport

    Manifest = dict[str, Any]

# Kubernetes, "Object Names and IDs": what PersistentVolumes, claims and namespaces may be called.
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(rf"{_LABEL.pattern}(\.{_LABEL.pattern})*")
_LONGEST_LABEL, _LONGEST_SUBDOMAIN = 63, 253


def unfit(volume: VolumeReport) -> str:
    """Say why no PersistentVolume can stand for a volume that an administrator may miss, or '' where none is missed."""
    if volume.state == "quarantined":
        return volume.reason
    if volume.is_sound and not _is_name(volume.name):
        return f"its name {volume.name!r} is none that a PersistentVolume can have"
    return ""


def persistent_volume(volume: VolumeReport, node: str, storage_class: str) -> Manifest:
    """Give the PersistentVolume, bound to its claim's name beforehand, so that no other claim takes it.

    Retain, until somebody has seen that all is well: with Delete, the end of a wrong claim would be the data's.
    """
    claim = _claim(volume)
    here = {"key": KEY, "operator": "In", "values": [node]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": volume.name, "annotations": {"pv.kubernetes.io/provisioned-by": NAME}},
        "spec": {
            "capacity": {"storage": str(volume.capacity_bytes)},
            **_usable_as(volume),
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": storage_class,
            **({"claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **claim}} if claim else {}),
            "csi": {"driver": NAME, "volumeHandle": volume.volume_id},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }


def claim_of(volume: VolumeReport, storage_class: str) -> Manifest | None:
    """Give the claim that a volume was made for; None where its record names none that could be."""
    claim = _claim(volume)
    if not claim:
        return None
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": claim,
        "spec": {
            "volumeName": volume.name,
            **_usable_as(volume),
            "storageClassName": storage_class,
            "resources": {"requests": {"storage": str(volume.capacity_bytes)}},
        },
    }


def _usable_as(volume: VolumeReport) -> Manifest:
    """Translate the access mode back as external-provisioner translated it; older records have none."""
    exclusive = volume.access_mode == AccessMode.SINGLE_NODE_SINGLE_WRITER.value
    return {
        "volumeMode": "Block" if volume.block else "Filesystem",
        "accessModes": ["ReadWriteOncePod" if exclusive else "ReadWriteOnce"],
    }


def _claim(volume: VolumeReport) -> dict[str, str]:
    """Give namespace and name of the claim; nothing where they could not be an object's."""
    namespace, _, name = volume.claim.partition("/")
    is_namespace = len(namespace) <= _LONGEST_LABEL and _LABEL.fullmatch(namespace)
    return {"namespace": namespace, "name": name} if is_namespace and _is_name(name) else {}


def _is_name(text: str) -> bool:
    return len(text) <= _LONGEST_SUBDOMAIN and _SUBDOMAIN.fullmatch(text) is not None
