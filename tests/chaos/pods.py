"""Ephemeral volumes of pods, as the matrix disturbs them: nothing leaks, and nobody else's is deleted."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.chaos.operations import Base, sizes
from tests.chaos.world import World, assert_filled, fill
from tests.support.inline import Pod
from tests.support.provisioned import MIB, PATIENT, unmount_below

if TYPE_CHECKING:
    from pathlib import Path

    from provisioner.assembly import Provisioner

_BYTES = 2 * MIB


def pod(world: World) -> Pod:
    """The pod that all is about."""
    return Pod(world.targets)


def data(world: World) -> Path:
    """Find the data of its volume."""
    return world.control / "volumes" / pod(world).volume_id() / "data"


def is_mounted(world: World) -> bool:
    """Tell whether its volume is mounted where it belongs."""
    return str(pod(world).target()) in {mount.mount_point for mount in world.mounts()}


class PublishEphemeral(Base):
    """NodePublishVolume of a volume in a pod's own manifest: makes it, then shows it."""

    def arrange(self, world: World, provisioner: Provisioner) -> None:
        """Begin with the folder of the pod alone."""
        del provisioner
        pod(world).wants()

    def act(self, world: World, provisioner: Provisioner) -> str:
        """Publish."""
        provisioner.publishing.publish(pod(world).request(size=str(_BYTES)), PATIENT)
        return "published"

    def inspect(self, world: World, provisioner: Provisioner, *, done: bool) -> None:
        """Nothing, or the volume, which may not be mounted yet; never a mount without it."""
        found = sizes(provisioner)
        assert found in ({}, {pod(world).volume_id(): _BYTES}), found
        assert (is_mounted(world) and found) or not done
        assert found or not is_mounted(world)
        world.assert_sibling(provisioner)

    def end(self, world: World, provisioner: Provisioner) -> None:
        """Its end takes the volume along."""
        provisioner.publishing.unpublish(pod(world).volume_id(), str(pod(world).target()), PATIENT)
        assert_only_sibling(world, provisioner)


class ForgetEphemeral(PublishEphemeral):
    """The same, but the pod is gone before anybody retries: the sweep finds what was left."""

    def check(self, place: Path, answer: str | None) -> None:
        """Restart; nobody publishes or unpublishes again."""
        del answer
        world = World(place)
        unmount_below(pod(world).folder)
        pod(world).forgotten()
        with world.running() as provisioner:
            for _ in range(2):
                provisioner.pod_sweep.run_once()
            assert_only_sibling(world, provisioner)


class UnpublishEphemeral(Base):
    """NodeUnpublishVolume of a pod's volume: takes it away, then deletes it."""

    def arrange(self, world: World, provisioner: Provisioner) -> None:
        """Begin with a published volume, filled."""
        provisioner.publishing.publish(pod(world).wants(size=str(_BYTES)), PATIENT)
        fill(data(world), "scratch")

    def act(self, world: World, provisioner: Provisioner) -> str:
        """Unpublish."""
        provisioner.publishing.unpublish(pod(world).volume_id(), str(pod(world).target()), PATIENT)
        return "unpublished"

    def inspect(self, world: World, provisioner: Provisioner, *, done: bool) -> None:
        """All of it, or not mounted, or nothing; a disk that fails may keep the volume of a pod that goes."""
        assert not (done and is_mounted(world))
        if sizes(provisioner):
            assert_filled(data(world), "scratch")
        world.assert_sibling(provisioner)

    def end(self, world: World, provisioner: Provisioner) -> None:
        """What is left then, the sweep takes."""
        pod(world).forgotten()
        for _ in range(2):
            provisioner.pod_sweep.run_once()
        assert_only_sibling(world, provisioner)


def assert_only_sibling(world: World, provisioner: Provisioner) -> None:
    """Assert that nothing is left but the volume that nobody spoke of."""
    world.assert_swept(provisioner)
    world.assert_sibling(provisioner)
    world.assert_published()
    assert os.listdir(world.control / "volumes") == ["sibling"]
