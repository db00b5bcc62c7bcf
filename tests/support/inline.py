"""Ephemeral volumes as the kubelet asks for them: its names, its paths, its folders of pods."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from provisioner.model import Capability, Inline, Publication
from provisioner.settings import EphemeralSettings, Settings
from tests.support.provisioned import MIB, MULTI


def allowing(settings: Settings, **keys: Any) -> Settings:
    """Give the same settings with ephemeral volumes allowed."""
    section = {"allow": True, "max_size_per_volume": 8 * MIB, "max_size_per_pod": 12 * MIB} | keys
    return msgspec.structs.replace(settings, ephemeral=EphemeralSettings(**section))


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod below the kubelet's folder `root`."""

    root: Path
    uid: str = "6f9d7f2e-6c55-4b2f-9d8e-0b6d4a1c2e3f"
    name: str = "web-0"

    @property
    def folder(self) -> Path:
        """The kubelet's folder of the pod."""
        return self.root / "pods" / self.uid

    def volume_id(self, volume: str = "scratch") -> str:
        """Give the name that the kubelet gives a volume (its csi_mounter.go, makeVolumeHandle)."""
        return "csi-" + hashlib.sha256(f"{self.uid}{volume}".encode()).hexdigest()

    def target(self, volume: str = "scratch") -> Path:
        """Give where the kubelet wants a volume."""
        return self.folder / "volumes/kubernetes.io~csi" / volume / "mount"

    def wants(
        self, volume: str = "scratch", size: str = "", capability: Capability = MULTI, *, readonly: bool = False
    ) -> Publication:
        """Make the parent of the target, as the kubelet does first, and give the request."""
        self.target(volume).parent.mkdir(parents=True, exist_ok=True)
        return self.request(volume, size, capability, readonly=readonly)

    def request(
        self, volume: str = "scratch", size: str = "", capability: Capability = MULTI, *, readonly: bool = False
    ) -> Publication:
        """Give the request for a volume."""
        inline = Inline(size, self.uid, f"default/{self.name}")
        return Publication(self.volume_id(volume), str(self.target(volume)), "", capability, readonly, inline)

    def forgotten(self) -> None:
        """Take away what the kubelet takes away once the pod is gone."""
        shutil.rmtree(self.folder)
