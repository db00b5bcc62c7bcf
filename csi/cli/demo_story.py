"""What the demo shows, step by step: calls, what must come back, and what must be seen on the disk."""

from __future__ import annotations

import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from errno import EROFS
from typing import TYPE_CHECKING, Any

import grpc

from csi.cli.demo_limits import Limits
from csi.cli.demo_steps import Steps, StoryError, code_of
from csi.cli.sizes import human_size
from csi.pb import csi_pb2
from provisioner.identity import CONTROL

if TYPE_CHECKING:
    from pathlib import Path

    from csi.cli.child import Child

MIB = 2**20
SIZE, LARGER_SIZE, FILE_SIZE = 64 * MIB, 128 * MIB, 8 * MIB
CALLERS = 8

_ESCAPE = re.compile(r"\\([0-7]{3})")
_CAPABILITY = csi_pb2.VolumeCapability(
    mount=csi_pb2.VolumeCapability.MountVolume(),
    access_mode=csi_pb2.VolumeCapability.AccessMode(mode=csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_MULTI_WRITER),
)


@dataclass(frozen=True)
class Place:
    """Folders of the demo below `root`."""

    root: Path

    def __post_init__(self) -> None:
        for folder in (self.pool, self.staging, self.target.parent, self.readonly_target.parent):
            folder.mkdir()

    @property
    def pool(self) -> Path:
        """The pool."""
        return self.root / "pool"

    @property
    def staging(self) -> Path:
        """Made by the CO before it stages."""
        return self.root / "staging"

    @property
    def target(self) -> Path:
        """Made by the driver when it publishes."""
        return self.root / "pod-1" / "mount"

    @property
    def readonly_target(self) -> Path:
        """Of a second pod."""
        return self.root / "pod-2" / "mount"

    def config(self) -> dict[str, Any]:
        """Configure the server. No reserve: the demo shall run on a nearly full disk as well."""
        pool = {"name": "demo", "path": str(self.pool), "init": "if-empty", "reserve": "0", "enforce": "besteffort"}
        return {"targetRoots": [str(self.root)], "measureIntervalSeconds": 0.5, "pools": [pool]}

    def left_in_pool(self) -> list[str]:
        """Name what is in the pool besides its identity: volumes, half-built ones, trash, publications."""
        folders = ("volumes", "staging", "trash", "published")
        return [f"{folder}/{name}" for folder in folders for name in os.listdir(self.pool / CONTROL / folder)]


def mounts_below(root: Path) -> list[str]:
    """Give the mount points below `root` in the order of mounting, from /proc/self/mountinfo (proc(5))."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        points = [_ESCAPE.sub(lambda m: chr(int(m[1], 8)), line.split()[4]) for line in table]
    return [point for point in points if point.startswith(f"{root}/")]


class Story:
    """The life of two volumes; StoryError where an answer or the disk is not what it must be."""

    def __init__(self, place: Place, server: Child) -> None:
        self._place = place
        self._server = server
        self._steps = Steps()
        self._volume_id = ""

    def tell(self) -> None:
        """Go through it all."""
        self._start()
        self._create()
        self._use()
        self._expand()
        self._crash()
        self._compete()
        Limits(self._place.root, self._place.pool, self._server, self._steps).tell()
        self._delete()
        self._end()

    def _start(self) -> None:
        self._steps.heading(f"A server at {self._server.endpoint}, its pool in {self._place.pool}")
        self._steps.act("start the server", self._server.start, lambda _: "Probe says ready")
        self._steps.call(
            "GetPluginInfo",
            self._server.identity.GetPluginInfo,
            csi_pb2.GetPluginInfoRequest(),
            lambda answer: f"{answer.name} {answer.vendor_version}",
        )
        self._steps.call(
            "GetCapacity", self._server.controller.GetCapacity, csi_pb2.GetCapacityRequest(), _capacity_in_words
        )

    def _create(self) -> None:
        self._steps.heading("A volume")
        create, request = self._server.controller.CreateVolume, _creation("pvc-demo", SIZE)
        made = self._steps.call("CreateVolume pvc-demo, 64 MiB", create, request, lambda a: a.volume.volume_id)
        again = self._steps.call(
            "the same call again, as after a lost answer", create, request, lambda _: "the same volume"
        )
        self._volume_id = made.volume.volume_id
        _must(again.volume.volume_id == self._volume_id, "a retry must give the same volume")
        _must(made.volume.capacity_bytes == SIZE, f"wanted {SIZE} bytes, found {made.volume.capacity_bytes}")
        self._steps.refused(
            "CreateVolume pvc-demo, 128 MiB",
            create,
            _creation("pvc-demo", LARGER_SIZE),
            grpc.StatusCode.ALREADY_EXISTS,
        )

    def _use(self) -> None:
        self._steps.heading("In use")
        stage = csi_pb2.NodeStageVolumeRequest(
            volume_id=self._volume_id, staging_target_path=str(self._place.staging), volume_capability=_CAPABILITY
        )
        self._steps.call("NodeStageVolume", self._server.node.NodeStageVolume, stage)
        self._publish("NodePublishVolume for pod 1", self._place.target)
        _must(str(self._place.target) in mounts_below(self._place.root), "the volume must be mounted at the target")
        self._steps.act("pod 1 writes 8 MiB", self._write)
        self._publish("NodePublishVolume for pod 2, read-only", self._place.readonly_target, readonly=True)
        self._steps.act("pod 2 reads them", self._read)
        self._steps.act("pod 2 tries to write", self._try_to_write)
        self._steps.act("NodeGetVolumeStats, measured in the background", self._measured)

    def _publish(self, what: str, target: Path, *, readonly: bool = False) -> None:
        request = csi_pb2.NodePublishVolumeRequest(
            volume_id=self._volume_id,
            staging_target_path=str(self._place.staging),
            target_path=str(target),
            volume_capability=_CAPABILITY,
            readonly=readonly,
        )
        self._steps.call(what, self._server.node.NodePublishVolume, request, lambda _: f"mounted at {target}")

    def _write(self) -> str:
        (self._place.target / "data").write_bytes(b"local" * (FILE_SIZE // 5) + b"path"[: FILE_SIZE % 5])
        return "written"

    def _read(self) -> str:
        found = (self._place.readonly_target / "data").read_bytes()
        _must(len(found) == FILE_SIZE and found.startswith(b"locallocal"), "pod 2 must read what pod 1 wrote")
        return "the same bytes"

    def _try_to_write(self) -> str:
        try:
            (self._place.readonly_target / "more").write_bytes(b"x")
        except OSError as error:
            _must(error.errno == EROFS, f"wanted EROFS, found {error}")
            return f"refused: {error.strerror}"
        raise StoryError("a read-only publication let a write through")

    def _stats(self) -> csi_pb2.VolumeUsage:
        request = csi_pb2.NodeGetVolumeStatsRequest(volume_id=self._volume_id, volume_path=str(self._place.target))
        units = csi_pb2.VolumeUsage.BYTES
        found = self._server.node.NodeGetVolumeStats(request, timeout=10).usage
        return next(usage for usage in found if usage.unit == units)

    def _measured(self) -> str:
        end = time.monotonic() + 20
        while (usage := self._stats()).used < FILE_SIZE:
            _must(time.monotonic() < end, f"used must become 8 MiB, found {usage.used} bytes")
            time.sleep(0.05)
        _must(usage.total == SIZE, f"total must be {SIZE}, found {usage.total}")
        return f"{human_size(usage.used)} used of {human_size(usage.total)}"

    def _expand(self) -> None:
        self._steps.heading("Growth, while it is mounted")
        wanted = csi_pb2.CapacityRange(required_bytes=LARGER_SIZE)
        self._steps.call(
            "ControllerExpandVolume to 128 MiB",
            self._server.controller.ControllerExpandVolume,
            csi_pb2.ControllerExpandVolumeRequest(volume_id=self._volume_id, capacity_range=wanted),
            lambda answer: human_size(answer.capacity_bytes),
        )
        self._steps.call(
            "NodeExpandVolume",
            self._server.node.NodeExpandVolume,
            csi_pb2.NodeExpandVolumeRequest(
                volume_id=self._volume_id, volume_path=str(self._place.target), capacity_range=wanted
            ),
            lambda answer: human_size(answer.capacity_bytes),
        )
        _must(self._stats().total == LARGER_SIZE, "statistics must show the new size")
        self._list("ListVolumes")

    def _list(self, what: str) -> None:
        found = self._steps.call(
            what, self._server.controller.ListVolumes, csi_pb2.ListVolumesRequest(), _listing_in_words
        )
        volumes = {entry.volume.volume_id: entry.volume.capacity_bytes for entry in found.entries}
        _must(volumes == {self._volume_id: LARGER_SIZE}, f"the list must hold the one volume, found {volumes}")

    def _crash(self) -> None:
        self._steps.heading("A crash")
        self._steps.act("kill -9 the server", self._server.kill)
        self._steps.act("pod 2 reads on, without a server", self._read)
        self._steps.act("start it again", self._server.start, lambda _: "Probe says ready")
        self._list("ListVolumes")
        self._publish("NodePublishVolume for pod 1, a retry", self._place.target)
        mounted = mounts_below(self._place.root)
        _must(mounted.count(str(self._place.target)) == 1, f"a retry must not mount twice, found {mounted}")
        self._steps.refused(
            "DeleteVolume while it is published",
            self._server.controller.DeleteVolume,
            csi_pb2.DeleteVolumeRequest(volume_id=self._volume_id),
            grpc.StatusCode.FAILED_PRECONDITION,
        )

    def _compete(self) -> None:
        self._steps.heading("A second volume")
        create = self._server.controller.CreateVolume
        free = self._server.controller.GetCapacity(csi_pb2.GetCapacityRequest(), timeout=10).available_capacity
        self._steps.refused(
            f"CreateVolume pvc-huge, {human_size(free + 2**40)}",
            create,
            _creation("pvc-huge", free + 2**40),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        )
        self._steps.act(f"CreateVolume pvc-second by {CALLERS} callers at once", self._create_at_once)
        second = self._steps.call(
            "CreateVolume pvc-second once more", create, _creation("pvc-second", SIZE), lambda _: "there it is"
        )
        self._steps.call(
            "DeleteVolume pvc-second",
            self._server.controller.DeleteVolume,
            csi_pb2.DeleteVolumeRequest(volume_id=second.volume.volume_id),
        )

    def _create_at_once(self) -> str:
        """Only OK with one and the same id, and ABORTED for 'another call is at it', are right answers."""
        create = self._server.controller.CreateVolume
        with ThreadPoolExecutor(CALLERS) as callers:
            calls = [callers.submit(create, _creation("pvc-second", SIZE), timeout=30) for _ in range(CALLERS)]
        errors = [error for call in calls if (error := call.exception())]
        codes = {code_of(error) for error in errors}
        _must(codes <= {grpc.StatusCode.ABORTED}, f"wanted OK or ABORTED, found {codes}")
        ids = {call.result().volume.volume_id for call in calls if not call.exception()}
        _must(len(ids) == 1, f"wanted one volume, found {ids or 'none'}")
        return f"one volume: {CALLERS - len(errors)} x OK, {len(errors)} x ABORTED (already pending)"

    def _delete(self) -> None:
        self._steps.heading("The end of the first")
        for pod, target in ((1, self._place.target), (2, self._place.readonly_target)):
            self._steps.call(
                f"NodeUnpublishVolume for pod {pod}",
                self._server.node.NodeUnpublishVolume,
                csi_pb2.NodeUnpublishVolumeRequest(volume_id=self._volume_id, target_path=str(target)),
                lambda _: "unmounted",
            )
            _must(not target.exists(), f"the driver must remove {target}")
        unstage = csi_pb2.NodeUnstageVolumeRequest(
            volume_id=self._volume_id, staging_target_path=str(self._place.staging)
        )
        self._steps.call("NodeUnstageVolume", self._server.node.NodeUnstageVolume, unstage)
        delete, request = self._server.controller.DeleteVolume, csi_pb2.DeleteVolumeRequest(volume_id=self._volume_id)
        self._steps.call("DeleteVolume pvc-demo", delete, request)
        self._steps.call("the same call again", delete, request)
        self._steps.act("the eraser, in the background", self._erased)

    def _erased(self) -> str:
        end = time.monotonic() + 30
        while left := self._place.left_in_pool():
            _must(time.monotonic() < end, f"deleted volumes must be erased, found {', '.join(left)}")
            time.sleep(0.02)
        return "all erased"

    def _end(self) -> None:
        status = self._steps.act("stop the server (SIGTERM)", self._server.stop, lambda found: f"exit status {found}")
        _must(status == 0, f"wanted exit status 0, found {status}")
        _must(not self._server.socket.exists(), f"the socket must be gone: {self._server.socket}")
        left = mounts_below(self._place.root) + self._place.left_in_pool()
        _must(not left, f"nothing must be left, found {', '.join(left)}")


def _must(condition: bool, sentence: str) -> None:  # noqa: FBT001  reads as 'must'
    if not condition:
        raise StoryError(sentence)


def _creation(name: str, size_bytes: int) -> csi_pb2.CreateVolumeRequest:
    return csi_pb2.CreateVolumeRequest(
        name=name,
        capacity_range=csi_pb2.CapacityRange(required_bytes=size_bytes),
        volume_capabilities=[_CAPABILITY],
    )


def _capacity_in_words(answer: csi_pb2.GetCapacityResponse) -> str:
    return f"{human_size(answer.available_capacity)} may be promised"


def _listing_in_words(answer: csi_pb2.ListVolumesResponse) -> str:
    return ", ".join(f"{entry.volume.volume_id} {human_size(entry.volume.capacity_bytes)}" for entry in answer.entries)
