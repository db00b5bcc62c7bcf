"""The operations once more, as calls through the socket of a real server that may die at any moment."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from csi.pb import csi_pb2 as pb
from provisioner.linux.mountinfo import read_mountinfo
from tests.chaos.world import assert_filled, fill, folder, wait_until
from tests.support.provisioned import MIB, unmount_below
from tests.support.served import Served, one_pool

if TYPE_CHECKING:
    from pathlib import Path

BYTES = 4 * MIB
MORE_BYTES = 8 * MIB
CAPABILITY = pb.VolumeCapability(
    mount=pb.VolumeCapability.MountVolume(),
    access_mode=pb.VolumeCapability.AccessMode(mode=pb.VolumeCapability.AccessMode.SINGLE_NODE_MULTI_WRITER),
)
_TIMEOUT_S = 30.0


class Site:
    """A server with one pool; after `begin` a volume named 'sibling' is there, filled and published."""

    def __init__(self, served: Served, place: Path, pool: Path) -> None:
        """Nothing is started yet."""
        self.served = served
        self.place = place
        self.control = pool / ".csi-local-path"
        self.targets = place / "targets"
        self.targets.mkdir()

    def begin(self) -> None:
        """Start the server on a pool that is empty."""
        self.served.start()
        self.sibling = self.create("sibling")
        fill(self.data(self.sibling), "sibling")
        self.publish(self.sibling, "sibling")

    def create(self, name: str, size: int = BYTES, **parameters: str) -> str:
        """CreateVolume; gives the volume_id."""
        request = pb.CreateVolumeRequest(
            name=name,
            capacity_range=pb.CapacityRange(required_bytes=size),
            volume_capabilities=[CAPABILITY],
            parameters=parameters,
        )
        volume = self.served.controller.CreateVolume(request, timeout=_TIMEOUT_S).volume
        assert volume.capacity_bytes >= size
        return volume.volume_id

    def delete(self, volume_id: str) -> None:
        """DeleteVolume."""
        self.served.controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id=volume_id), timeout=_TIMEOUT_S)

    def expand(self, volume_id: str, size: int) -> None:
        """ControllerExpandVolume."""
        request = pb.ControllerExpandVolumeRequest(
            volume_id=volume_id,
            capacity_range=pb.CapacityRange(required_bytes=size),
            volume_capability=CAPABILITY,
        )
        answer = self.served.controller.ControllerExpandVolume(request, timeout=_TIMEOUT_S)
        assert answer.capacity_bytes == size

    def stage(self, volume_id: str) -> None:
        """NodeStageVolume."""
        request = pb.NodeStageVolumeRequest(
            volume_id=volume_id, staging_target_path=self._staged(), volume_capability=CAPABILITY
        )
        self.served.node.NodeStageVolume(request, timeout=_TIMEOUT_S)

    def unstage(self, volume_id: str) -> None:
        """NodeUnstageVolume."""
        request = pb.NodeUnstageVolumeRequest(volume_id=volume_id, staging_target_path=self._staged())
        self.served.node.NodeUnstageVolume(request, timeout=_TIMEOUT_S)

    def _staged(self) -> str:
        return str(self.targets / "staged")

    def publish(self, volume_id: str, target: str) -> None:
        """NodePublishVolume."""
        request = pb.NodePublishVolumeRequest(
            volume_id=volume_id,
            staging_target_path=self._staged(),
            target_path=str(self.targets / target),
            volume_capability=CAPABILITY,
        )
        self.served.node.NodePublishVolume(request, timeout=_TIMEOUT_S)

    def unpublish(self, volume_id: str, target: str) -> None:
        """NodeUnpublishVolume."""
        request = pb.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path=str(self.targets / target))
        self.served.node.NodeUnpublishVolume(request, timeout=_TIMEOUT_S)

    def sizes(self) -> dict[str, int]:
        """List all volumes and their sizes, by id."""
        answer = self.served.controller.ListVolumes(pb.ListVolumesRequest(), timeout=_TIMEOUT_S)
        return {entry.volume.volume_id: entry.volume.capacity_bytes for entry in answer.entries}

    def data(self, volume_id: str) -> Path:
        """Find a volume's data."""
        return self.control / "volumes" / folder(volume_id) / "data"

    def mounted(self) -> list[str]:
        """List the targets that are mounted."""
        points = [mount.mount_point for mount in read_mountinfo()]
        return sorted(point.rpartition("/")[2] for point in points if point.startswith(f"{self.targets}/"))

    def assert_clean(self, *ids: str, targets: tuple[str, ...] = ()) -> None:
        """Assert that nothing is there but the sibling, untouched, and what is named."""
        assert set(self.sizes()) == {self.sibling, *ids}
        assert self.sizes()[self.sibling] == BYTES
        assert self.mounted() == sorted(["sibling", *targets])
        assert_filled(self.targets / "sibling", "sibling")
        self.assert_empty("staging")
        self.assert_empty("trash")
        assert sorted(os.listdir(self.control / "volumes")) == sorted(map(folder, (self.sibling, *ids)))
        assert len(os.listdir(self.control / "published")) == 1 + len(targets)

    def assert_empty(self, rest: str) -> None:
        """Assert that a folder of leftovers is empty, or soon will be."""
        wait_until(lambda: os.listdir(self.control / rest) == [], f"{rest} is not swept")

    def renew(self) -> None:
        """Begin anew on an empty pool."""
        self.close()
        shutil.rmtree(self.control)
        self.begin()

    def close(self) -> None:
        """Take away what is mounted."""
        self.served.stop()
        unmount_below(self.targets)


def site_config(place: Path, **pool: Any) -> dict[str, Any]:
    """Give a configuration whose background work keeps still; `pool` are keys of the pool."""
    return {**one_pool(place, reserve=0, **pool), "measureIntervalSeconds": 3600}


class Rpc(ABC):
    """One call on a volume of its own, from what it starts from to what must be true after it."""

    def __init__(self, site: Site, number: int) -> None:
        """Nothing is done yet. number: makes the volume's name its own."""
        self.site = site
        self.name = f"subject-{number}"
        self.volume_id = ""

    def arrange(self) -> None:
        """Make what the call starts from: the volume, filled."""
        self.volume_id = self.site.create(self.name)
        fill(self.site.data(self.volume_id), self.name)

    @abstractmethod
    def act(self) -> None:
        """Make the call."""

    @abstractmethod
    def inspect(self, *, done: bool) -> None:
        """Assert that the volume is as before or as wanted; certainly as wanted where `done`."""

    def finish(self, *, acknowledged: bool) -> None:
        """After a restart: inspect, retry, inspect, and take everything away again."""
        self.inspect(done=acknowledged)
        self.act()
        self.inspect(done=True)
        self.site.unpublish(self.volume_id, self.name)
        self.site.delete(self.volume_id)
        self.site.assert_clean()


class Create(Rpc):
    """CreateVolume."""

    def arrange(self) -> None:
        """Begin with nothing, but know the id: it has the same pool as the sibling's."""
        self.volume_id = self.site.sibling.partition(".")[0] + "." + self.name

    def act(self) -> None:
        """Create."""
        assert self.site.create(self.name, mode="2750", uid="1234") == self.volume_id

    def inspect(self, *, done: bool) -> None:
        """Nothing, or all of it."""
        assert self.volume_id in self.site.sizes() or not done
        if self.volume_id in self.site.sizes():
            found = self.site.data(self.volume_id).stat()
            assert (found.st_mode & 0o7777, found.st_uid) == (0o2750, 1234)


class Expand(Rpc):
    """ControllerExpandVolume."""

    def act(self) -> None:
        """Expand."""
        self.site.expand(self.volume_id, MORE_BYTES)

    def inspect(self, *, done: bool) -> None:
        """The old size or the new one."""
        assert self.site.sizes()[self.volume_id] in ((MORE_BYTES,) if done else (BYTES, MORE_BYTES))
        assert_filled(self.site.data(self.volume_id), self.name)


class Delete(Rpc):
    """DeleteVolume."""

    def act(self) -> None:
        """Delete."""
        self.site.delete(self.volume_id)

    def inspect(self, *, done: bool) -> None:
        """All of it, or nothing."""
        if self.volume_id in self.site.sizes():
            assert not done
            assert_filled(self.site.data(self.volume_id), self.name)


class Stage(Rpc):
    """NodeStageVolume."""

    def act(self) -> None:
        """Stage."""
        self.site.stage(self.volume_id)

    def inspect(self, *, done: bool) -> None:
        """As it was, done or not."""
        del done
        assert self.site.mounted() == ["sibling"]
        assert_filled(self.site.data(self.volume_id), self.name)


class Unstage(Stage):
    """NodeUnstageVolume."""

    def act(self) -> None:
        """Unstage."""
        self.site.unstage(self.volume_id)


class Publish(Rpc):
    """NodePublishVolume."""

    def act(self) -> None:
        """Publish."""
        self.site.publish(self.volume_id, self.name)

    def inspect(self, *, done: bool) -> None:
        """Not mounted, or mounted once."""
        assert self.site.mounted() in ([["sibling", self.name]] if done else [["sibling", self.name], ["sibling"]])
        assert_filled(self.site.data(self.volume_id), self.name)


class Unpublish(Rpc):
    """NodeUnpublishVolume."""

    def arrange(self) -> None:
        """Begin with a published volume."""
        super().arrange()
        self.site.publish(self.volume_id, self.name)

    def act(self) -> None:
        """Unpublish."""
        self.site.unpublish(self.volume_id, self.name)

    def inspect(self, *, done: bool) -> None:
        """Mounted, or not; where done the target is gone."""
        assert self.site.mounted() in ([["sibling"]] if done else [["sibling", self.name], ["sibling"]])
        assert not (done and (self.site.targets / self.name).exists())
        assert_filled(self.site.data(self.volume_id), self.name)


RPCS: dict[str, type[Rpc]] = {
    "CreateVolume": Create,
    "ControllerExpandVolume": Expand,
    "DeleteVolume": Delete,
    "NodeStageVolume": Stage,
    "NodeUnstageVolume": Unstage,
    "NodePublishVolume": Publish,
    "NodeUnpublishVolume": Unpublish,
}
