"""Operations on images and raw block volumes, as the matrix disturbs them: no loop device may be left behind."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from provisioner import loops
from provisioner.errors import Precondition
from provisioner.linux.loop import LO_FLAGS_READ_ONLY
from provisioner.model import AccessMode, Capability, CapacityRange
from tests.chaos import starts
from tests.chaos.operations import SUBJECT_BYTES, Base, sizes
from tests.chaos.world import World, wait_until
from tests.support.provisioned import MIB, MULTI, PATIENT, at, wanted

if TYPE_CHECKING:
    from provisioner.assembly import Provisioner
    from provisioner.model import NewVolume

_MORE_BYTES = 16 * MIB
_WORDS = "written before"
_BLOCK = Capability(AccessMode.SINGLE_NODE_MULTI_WRITER, block=True)


class ImageBase(Base):
    """A pool with a sibling in use; the subject is an image."""

    capability = MULTI
    size_bytes = SUBJECT_BYTES
    before: tuple[str, ...] = ()  # names of the targets that are mounted before the operation
    after: tuple[str, ...] = ()  # and of those after it
    _same_process = False

    def wanted(self) -> NewVolume:
        """Ask for the subject."""
        asked = wanted("subject", SUBJECT_BYTES, backend="image", thin="true")
        return type(asked)(asked.name, asked.capacity, (self.capability,), asked.parameters)

    def arrange(self, world: World, provisioner: Provisioner) -> None:
        """Make the subject, with a file in it that must stay."""
        provisioner.volumes.create(self.wanted(), PATIENT)
        self.stage(world, provisioner)
        if not self.capability.block:
            (world.targets / "staged/file").write_text(_WORDS)
        if "staged" not in self.before:
            self.unstage(world, provisioner)
        if "subject" in self.before:
            self.publish(world, provisioner)

    def stage(self, world: World, provisioner: Provisioner) -> None:
        """Stage the subject."""
        provisioner.publishing.stage(world.subject, str(world.targets / "staged"), self.capability)

    def unstage(self, world: World, provisioner: Provisioner) -> None:
        """Unstage it, and take the folder away, as its orchestrator does."""
        provisioner.publishing.unstage(world.subject, str(world.targets / "staged"))
        with suppress(FileNotFoundError):
            (world.targets / "staged").rmdir()

    def publish(self, world: World, provisioner: Provisioner) -> None:
        """Publish it."""
        wish = at(world.subject, world.targets / "subject", self.capability, staged=str(world.targets / "staged"))
        provisioner.publishing.publish(wish, PATIENT)

    def inspect(self, world: World, provisioner: Provisioner, *, done: bool) -> None:
        """Before or after, and nothing in between; the file is there, and at most one device."""
        found = sizes(provisioner)
        assert found == {"subject": self.size_bytes}, found
        names = sorted(mount.mount_point.rpartition("/")[2] for mount in world.mounts())
        both = [sorted(("sibling", *targets)) for targets in (self.before, self.after)]
        assert names in both[1 if done else 0 :], names
        for name in {"staged", "subject"} & set(names):
            if not self.capability.block:
                assert (world.targets / name / "file").read_text() == _WORDS
        # A close that was made to fail leaves its descriptor open, which holds the device until that process ends.
        if done and not self._same_process:
            due = 1 if len(names) > 1 else 0
            # Another lane that looks at all devices has one open for a moment, and what is detached goes only then.
            wait_until(lambda: len(devices(world)) == due, f"wanted just {due} devices")

    def agree(self, world: World, provisioner: Provisioner) -> None:
        """The same, but for the devices: they are counted in the next process."""
        self._same_process = True
        super().agree(world, provisioner)

    def end(self, world: World, provisioner: Provisioner) -> None:
        """Take everything away; no device may remain."""
        provisioner.publishing.unpublish(world.subject, str(world.targets / "subject"), PATIENT)
        self.unstage(world, provisioner)
        provisioner.volumes.delete(world.subject, PATIENT)
        world.assert_swept(provisioner)
        world.assert_published()
        assert os.listdir(world.targets) == ["sibling"]
        wait_until(lambda: devices(world) == [], "loop devices are left")

    def clean(self, place: Path) -> None:
        """Detach too what an operation that was not checked has attached for longer than a process lives."""
        for number in devices(World(place)):
            loops.detach(number)
        super().clean(place)


class ImageCreate(ImageBase):
    """CreateVolume of an image."""

    commit = r"^renameat2.*staging.*volumes>, \"subject\""

    def arrange(self, world: World, provisioner: Provisioner) -> None:
        """Begin with nothing."""

    def act(self, world: World, provisioner: Provisioner) -> str:
        """Create."""
        del world
        return provisioner.volumes.create(self.wanted(), PATIENT).volume_id

    def inspect(self, world: World, provisioner: Provisioner, *, done: bool) -> None:
        """Nothing, or the whole image, which can be mounted."""
        found = sizes(provisioner)
        assert found == {"subject": SUBJECT_BYTES} or (found == {} and not done), found
        if found:
            assert (world.control / "volumes/subject/disk.img").stat().st_size == SUBJECT_BYTES
            self.stage(world, provisioner)
            self.unstage(world, provisioner)


class ImageExpand(ImageBase):
    """ControllerExpandVolume of an image that is published."""

    commit = r"^rename.*staging.*volumes>, \"subject/volume.json\""
    before = after = ("staged", "subject")

    def act(self, world: World, provisioner: Provisioner) -> str:
        """Expand."""
        return str(provisioner.volumes.expand(world.subject, CapacityRange(_MORE_BYTES), MULTI, PATIENT).capacity_bytes)

    def inspect(self, world: World, provisioner: Provisioner, *, done: bool) -> None:
        """The old size, or the new one; once staged again, the file has just that, and the filesystem no more."""
        size = sizes(provisioner)["subject"]
        assert size in ((_MORE_BYTES,) if done else (SUBJECT_BYTES, _MORE_BYTES))
        with suppress(Precondition):  # a mounted ext4 grows for nobody who lacks CAP_SYS_RESOURCE
            self.stage(world, provisioner)
        assert (world.control / "volumes/subject/disk.img").stat().st_size == size
        df = os.statvfs(world.targets / "subject")
        assert df.f_blocks * df.f_frsize <= size
        assert (world.targets / "subject/file").read_text() == _WORDS


class ImageStage(ImageBase):
    """NodeStageVolume of an image: a device, a check, a mount."""

    after = ("staged",)

    def act(self, world: World, provisioner: Provisioner) -> str:
        """Stage."""
        self.stage(world, provisioner)
        return "staged"


class ImageGrow(ImageStage):
    """NodeStageVolume of an image that has grown: so does its filesystem, once it is mounted.

    Or before, checked and by programs, where this process lacks CAP_SYS_RESOURCE.
    """

    # The calls of the programs are not ours, and how often what they say is read depends on how fast they are.
    only = r"^ioctl|^mount|^unlink|staging|disk\.img"
    size_bytes = _MORE_BYTES

    def arrange(self, world: World, provisioner: Provisioner) -> None:
        """Expand it while nobody has it."""
        super().arrange(world, provisioner)
        provisioner.volumes.expand(world.subject, CapacityRange(_MORE_BYTES), MULTI, PATIENT)

    def inspect(self, world: World, provisioner: Provisioner, *, done: bool) -> None:
        """What is staged has grown."""
        super().inspect(world, provisioner, done=done)
        if done:
            df = os.statvfs(world.targets / "staged")
            assert SUBJECT_BYTES < df.f_blocks * df.f_frsize <= _MORE_BYTES


class ImageUnstage(ImageBase):
    """NodeUnstageVolume of an image."""

    before = ("staged",)

    def act(self, world: World, provisioner: Provisioner) -> str:
        """Unstage."""
        provisioner.publishing.unstage(world.subject, str(world.targets / "staged"))
        return "unstaged"


class ImagePublish(ImageBase):
    """NodePublishVolume of a staged image."""

    before, after = ("staged",), ("staged", "subject")

    def act(self, world: World, provisioner: Provisioner) -> str:
        """Publish."""
        self.publish(world, provisioner)
        return "published"


class BlockPublish(ImageBase):
    """NodePublishVolume of a raw block volume, which attaches its device."""

    capability = _BLOCK
    after = ("subject",)

    def act(self, world: World, provisioner: Provisioner) -> str:
        """Publish."""
        self.publish(world, provisioner)
        return "published"


class BlockPublishReadonly(BlockPublish):
    """NodePublishVolume of a raw block volume that must refuse writes: a device apart."""

    def publish(self, world: World, provisioner: Provisioner) -> None:
        """Publish it read-only."""
        provisioner.publishing.publish(
            at(
                world.subject,
                world.targets / "subject",
                _BLOCK,
                staged=str(world.targets / "staged"),
                readonly=True,
            ),
            PATIENT,
        )

    def inspect(self, world: World, provisioner: Provisioner, *, done: bool) -> None:
        """What is published refuses writes."""
        super().inspect(world, provisioner, done=done)
        if done:
            assert all(loops.flags_of(number) & LO_FLAGS_READ_ONLY for number in devices(world))


class BlockExpand(ImageBase):
    """ControllerExpandVolume of a raw block volume that is published."""

    commit = r"^rename.*staging.*volumes>, \"subject/volume.json\""
    capability = _BLOCK
    before = after = ("subject",)

    def act(self, world: World, provisioner: Provisioner) -> str:
        """Expand."""
        wanted_range = CapacityRange(_MORE_BYTES)
        return str(provisioner.volumes.expand(world.subject, wanted_range, _BLOCK, PATIENT).capacity_bytes)

    def look(self, world: World) -> None:
        """The device never shows more than the record says."""
        super().look(world)
        record = json.loads((world.control / "volumes/subject/volume.json").read_bytes())
        assert [loops.size_of(number) <= record["capacity_bytes"] for number in devices(world)] == [True]

    def inspect(self, world: World, provisioner: Provisioner, *, done: bool) -> None:
        """The old size, or the new one, of record and device."""
        size = sizes(provisioner)["subject"]
        assert size in ((_MORE_BYTES,) if done else (SUBJECT_BYTES, _MORE_BYTES))
        assert [loops.size_of(number) for number in devices(world)] == [size]


class BlockUnpublish(ImageBase):
    """NodeUnpublishVolume of a raw block volume, which lets its device go."""

    capability = _BLOCK
    before = ("subject",)

    def act(self, world: World, provisioner: Provisioner) -> str:
        """Unpublish."""
        provisioner.publishing.unpublish(world.subject, str(world.targets / "subject"), PATIENT)
        return "unpublished"


class _Erasing(starts.Erasing):
    """The eraser, twice: what shows the image is detached first, which takes the kernel a moment."""

    def __call__(self) -> str:
        super().__call__()
        self.in_another_thread(lambda: wait_until(lambda: devices(self.world) == [], "the device is not detached"))
        return super().__call__()


class ImageErase(starts.Erase):
    """The erasing of an image that a device still shows."""

    # How many devices are looked at for those of the image depends on what other lanes do: their calls are no points.
    only = r"disk\.img|^unlink|^rmdir"
    eraser = _Erasing

    def make_subject(self, world: World, provisioner: Provisioner) -> None:
        """Make a raw block volume, and leave it a device."""
        asked = wanted("subject", SUBJECT_BYTES, backend="image", thin="true")
        provisioner.volumes.create(type(asked)(asked.name, asked.capacity, (_BLOCK,), asked.parameters), PATIENT)
        image_fd = os.open(world.control / "volumes/subject/disk.img", os.O_RDWR)
        with loops.attached(image_fd, autoclear=False):
            os.close(image_fd)

    def inspect(self, world: World, provisioner: Provisioner, *, done: bool) -> None:
        """No device is left."""
        super().inspect(world, provisioner, done=done)
        wait_until(lambda: devices(world) == [], "loop devices are left")

    def clean(self, place: Path) -> None:
        """Detach it, should the operation not have been checked."""
        for number in devices(World(place)):
            loops.detach(number)
        super().clean(place)


def devices(world: World) -> list[int]:
    """List the loop devices of the world's images."""
    found = []
    for number, _ in loops.ours():
        with suppress(OSError):  # another lane's, which went meanwhile
            backing = Path(f"/sys/block/loop{number}/loop/backing_file").read_text(encoding="utf-8")
            if f"/{world.place.name}/" in backing and str(world.place.parent) in backing:
                found.append(number)
    return found
