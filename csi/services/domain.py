"""What the services need of the domain; `provisioner` has it, and tests have fakes of it.

Errors are those of `provisioner.errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from provisioner.model import (
        AvailableCapacity,
        Call,
        Capability,
        CapacityRange,
        HealthPage,
        NewVolume,
        Page,
        Publication,
        Statistics,
        StorageProblem,
        Volume,
        VolumeHealth,
    )


class Ready(Protocol):
    """What is not at once ready."""

    @property
    def ready(self) -> bool:
        """True once the first scan has ended."""


class Volumes(Ready, Protocol):
    """The volumes of this node."""

    def create(self, new_volume: NewVolume, call: Call, /) -> Volume:
        """Make a volume, or find the one that an earlier try made."""

    def delete(self, volume_id: str, call: Call, /) -> None:
        """Remove a volume; one that is not there is removed already."""

    def get(self, volume_id: str, /) -> Volume:
        """Look a volume up."""

    def list(self, max_entries: int, starting_token: str, /) -> Page:
        """Give a page of at most `max_entries` volumes, or of as many as one answer can hold (0)."""

    def expand(self, volume_id: str, capacity: CapacityRange, capability: Capability | None, call: Call, /) -> Volume:
        """Let a volume grow."""

    def validate(self, volume_id: str, capabilities: tuple[Capability, ...], parameters: dict[str, str], /) -> str:
        """Say why a volume cannot be used so, or '' where it can."""

    def capacity(self, parameters: dict[str, str], capabilities: tuple[Capability, ...], /) -> AvailableCapacity:
        """Tell what one more volume may have."""

    def health(self, volume_id: str, /) -> VolumeHealth:
        """Tell what is wrong with a volume."""

    def list_health(self, max_entries: int, starting_token: str, /) -> HealthPage:
        """Give a page of volumes, as `list` does, with what is wrong with each."""

    def storage_health(self) -> Sequence[StorageProblem]:
        """Tell what is wrong with the pools."""


class Publishing(Protocol):
    """Volumes at paths of this node."""

    def stage(self, volume_id: str, staging_target_path: str, capability: Capability, /) -> None:
        """Make a volume ready to be published."""

    def unstage(self, volume_id: str, staging_target_path: str, /) -> None:
        """Undo `stage`."""

    def publish(self, publication: Publication, call: Call, /) -> None:
        """Show a volume at a path; one that stands in a pod's own manifest is made first."""

    def unpublish(self, volume_id: str, target_path: str, call: Call, /) -> None:
        """Undo `publish`; what it made is deleted."""

    def statistics(self, volume_id: str, volume_path: str, /) -> Statistics:
        """Give the figures of a published volume."""

    def expand(self, volume_id: str, volume_path: str, capacity: CapacityRange, /) -> int:
        """Let a published volume's filesystem grow; gives its bytes."""

    def health(self, volume_id: str, publish_path: str, /) -> VolumeHealth:
        """Tell what is wrong with a volume as seen from this node; the path may be ''."""


class Provisioner(Protocol):
    """Everything that a node's services stand on."""

    @property
    def volumes(self) -> Volumes:
        """The volumes."""

    @property
    def publishing(self) -> Publishing:
        """Their publications."""
