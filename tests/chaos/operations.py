"""The operations that callers ask for, as the matrix disturbs them."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from provisioner.model import CapacityRange
from tests.chaos.world import SIBLING_BYTES, World, assert_filled
from tests.support.provisioned import MIB, MULTI, PATIENT, at, wanted

if TYPE_CHECKING:
    from pathlib import Path

    from provisioner.assembly import Provisioner
    from provisioner.model import NewVolume
    from tests.chaos.scenario import Operation

SUBJECT_BYTES = 8 * MIB
_MORE_BYTES = 16 * MIB
_MODE, _UID, _GID = 0o2750, 1234, 5678


class Base(ABC):
    """A pool with a sibling in use; one operation on another volume, named 'subject'."""

    commit = ""
    only = ""

    def prepare(self, place: Path) -> Operation:
        """Start on a new pool, prepare the subject."""
        world = World(place)
        provisioner = world.with_sibling()
        self.arrange(world, provisioner)
        return _Prepared(self, world, provisioner)

    def check(self, place: Path, answer: str | None) -> None:
        """Restart, hold what must hold before and after the retry, then take the subject away."""
        world = World(place)
        self.look(world)
        with world.running() as provisioner:
            world.assert_swept(provisioner)
            self.inspect(world, provisioner, done=answer is not None)
            again = self.act(world, provisioner)
            assert again == answer or answer is None, f"the retry answers {again!r}, wanted {answer!r}"
            self.inspect(world, provisioner, done=True)
            world.assert_agreed(provisioner)
            world.assert_sibling(provisioner)
            self.end(world, provisioner)

    def end(self, world: World, provisioner: Provisioner) -> None:
        """Take the subject away; nothing of it may remain."""
        provisioner.publishing.unpublish(world.subject, str(world.targets / "subject"), PATIENT)
        provisioner.volumes.delete(world.subject, PATIENT)
        world.assert_swept(provisioner)
        world.assert_published()
        assert os.listdir(world.targets) == ["sibling"]
        assert os.listdir(world.control / "volumes") == ["sibling"]

    def clean(self, place: Path) -> None:
        """Unmount and remove everything."""
        World(place).clean()

    def arrange(self, world: World, provisioner: Provisioner) -> None:
        """Make what the operation starts from."""
        world.make(provisioner, "subject", SUBJECT_BYTES)

    @abstractmethod
    def act(self, world: World, provisioner: Provisioner) -> str:
        """Do the operation."""

    def agree(self, world: World, provisioner: Provisioner) -> None:
        """Assert, where the operation was done, that memory and disk agree."""
        world.assert_agreed(provisioner)
        self.inspect(world, provisioner, done=True)

    def look(self, world: World) -> None:
        """Assert what must hold before any restart."""
        assert world.control.exists(), "the pool is gone"

    @abstractmethod
    def inspect(self, world: World, provisioner: Provisioner, *, done: bool) -> None:
        """Assert that the subject is as it was before or, and certainly where `done`, as it is wanted after."""


class _Prepared:
    def __init__(self, scenario: Base, world: World, provisioner: Provisioner) -> None:
        self._scenario, self._world, self._provisioner = scenario, world, provisioner
        assert world.pool_id  # read now: the operation shall make its own system calls only

    def __call__(self) -> str:
        return self._scenario.act(self._world, self._provisioner)

    def agree(self) -> None:
        self._scenario.agree(self._world, self._provisioner)


def sizes(provisioner: Provisioner) -> dict[str, int]:
    """List the volumes and their sizes, but for the sibling."""
    found = {volume.name: volume.capacity_bytes for volume in provisioner.volumes.list(0, "").volumes}
    assert found.pop("sibling") == SIBLING_BYTES
    return found


class Create(Base):
    """CreateVolume with an owner and a mode."""

    commit = r"^renameat2.*staging.*volumes>, \"subject\""
    wanted: NewVolume = wanted("subject", SUBJECT_BYTES, mode=f"{_MODE:04o}", uid=str(_UID), gid=str(_GID))

    def arrange(self, world: World, provisioner: Provisioner) -> None:
        """Begin with nothing."""

    def act(self, world: World, provisioner: Provisioner) -> str:
        """Create; the answer is the volume_id."""
        volume = provisioner.volumes.create(self.wanted, PATIENT)
        assert (volume.volume_id, volume.capacity_bytes) == (world.subject, SUBJECT_BYTES)
        return volume.volume_id

    def inspect(self, world: World, provisioner: Provisioner, *, done: bool) -> None:
        """Nothing, or the whole volume."""
        found = sizes(provisioner)
        assert found == {"subject": SUBJECT_BYTES} or (found == {} and not done), found
        assert ("subject" in found) == (world.control / "volumes/subject").exists()
        if found:
            data = world.data(world.subject).stat()
            assert (data.st_mode & 0o7777, data.st_uid, data.st_gid) == (_MODE, _UID, _GID)


class Expand(Base):
    """ControllerExpandVolume."""

    commit = r"^rename.*staging.*volumes>, \"subject/volume.json\""

    def act(self, world: World, provisioner: Provisioner) -> str:
        """Expand; the answer is the new size."""
        volume = provisioner.volumes.expand(world.subject, CapacityRange(_MORE_BYTES), MULTI, PATIENT)
        return str(volume.capacity_bytes)

    def inspect(self, world: World, provisioner: Provisioner, *, done: bool) -> None:
        """The old size, or the new one."""
        assert sizes(provisioner)["subject"] in ((_MORE_BYTES,) if done else (SUBJECT_BYTES, _MORE_BYTES))
        assert_filled(world.data(world.subject), "subject")


class Delete(Base):
    """DeleteVolume."""

    commit = r"^renameat2.*volumes>, \"subject\".*trash"

    def act(self, world: World, provisioner: Provisioner) -> str:
        """Delete."""
        provisioner.volumes.delete(world.subject, PATIENT)
        return "deleted"

    def inspect(self, world: World, provisioner: Provisioner, *, done: bool) -> None:
        """The whole volume, or nothing."""
        found = sizes(provisioner)
        assert found == {} or (found == {"subject": SUBJECT_BYTES} and not done), found
        if found:
            assert_filled(world.data(world.subject), "subject")


class Stage(Base):
    """NodeStageVolume: changes nothing."""

    def act(self, world: World, provisioner: Provisioner) -> str:
        """Stage."""
        provisioner.publishing.stage(world.subject, str(world.targets / "staged"), MULTI)
        return "staged"

    def inspect(self, world: World, provisioner: Provisioner, *, done: bool) -> None:
        """As it was, done or not."""
        del done
        assert sizes(provisioner) == {"subject": SUBJECT_BYTES}
        assert_filled(world.data(world.subject), "subject")
        world.assert_published()


class Unstage(Stage):
    """NodeUnstageVolume: changes nothing either."""

    def act(self, world: World, provisioner: Provisioner) -> str:
        """Unstage."""
        provisioner.publishing.unstage(world.subject, str(world.targets / "staged"))
        return "unstaged"


class Publish(Base):
    """NodePublishVolume."""

    readonly = False

    def act(self, world: World, provisioner: Provisioner) -> str:
        """Publish."""
        target = world.targets / "subject"
        provisioner.publishing.publish(at(world.subject, target, readonly=self.readonly), PATIENT)
        return "published"

    def look(self, world: World) -> None:
        """A mount that is there is just as it was asked for, from the first moment."""
        for mount in world.mounts():
            if mount.mount_point == str(world.targets / "subject"):
                assert ("ro" in mount.options) == self.readonly, mount

    def inspect(self, world: World, provisioner: Provisioner, *, done: bool) -> None:
        """Not mounted, or mounted once, and hinted at unless the hint itself met the fault."""
        self.look(world)
        mounted = [mount.mount_point for mount in world.mounts()]
        assert mounted.count(str(world.targets / "subject")) == 1 or not done
        assert len(mounted) <= 2, mounted
        assert sizes(provisioner) == {"subject": SUBJECT_BYTES}
        assert_filled(world.data(world.subject), "subject")
        if str(world.targets / "subject") in mounted:
            assert_filled(world.targets / "subject", "subject")

    def end(self, world: World, provisioner: Provisioner) -> None:
        """After a retry in this process the hint is there again."""
        world.assert_published("subject")
        super().end(world, provisioner)


class PublishReadonly(Publish):
    """NodePublishVolume, read-only."""

    readonly = True


class Unpublish(Base):
    """NodeUnpublishVolume."""

    def arrange(self, world: World, provisioner: Provisioner) -> None:
        """Begin with a published subject."""
        super().arrange(world, provisioner)
        provisioner.publishing.publish(at(world.subject, world.targets / "subject"), PATIENT)

    def act(self, world: World, provisioner: Provisioner) -> str:
        """Unpublish."""
        provisioner.publishing.unpublish(world.subject, str(world.targets / "subject"), PATIENT)
        return "unpublished"

    def inspect(self, world: World, provisioner: Provisioner, *, done: bool) -> None:
        """Mounted, or not; where done, the target is gone as well."""
        mounted = [mount.mount_point for mount in world.mounts()]
        assert len(mounted) == 1 or not done
        assert not (done and (world.targets / "subject").exists())
        assert sizes(provisioner) == {"subject": SUBJECT_BYTES}
        assert_filled(world.data(world.subject), "subject")


class UnpublishOrphan(Unpublish):
    """NodeUnpublishVolume of a volume whose folder somebody has taken away: the mount itself must tell."""

    def arrange(self, world: World, provisioner: Provisioner) -> None:
        """Begin with a publication of what is gone."""
        super().arrange(world, provisioner)
        shutil.rmtree(world.control / "volumes/subject")

    def agree(self, world: World, provisioner: Provisioner) -> None:
        """The volume is still known; nobody told the provisioner."""

    def inspect(self, world: World, provisioner: Provisioner, *, done: bool) -> None:
        """Mounted, or not."""
        mounted = [mount.mount_point for mount in world.mounts()]
        assert len(mounted) == 1 or not done
        assert not (done and (world.targets / "subject").exists())
        world.assert_sibling(provisioner)
