"""`csi-local-path demo`: where it takes place, and that nothing of it is left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from csi.cli.child import Child, ChildFailedError
from csi.cli.demo_steps import StoryError
from csi.cli.demo_story import Place, Story, mounts_below
from csi.cli.interrupts import Interrupts
from csi.cli.options import fail

if TYPE_CHECKING:
    from collections.abc import Iterator


@click.command()
@click.option(
    "--path", type=click.Path(path_type=Path), help="A directory on the disk to use; default: /tmp or TMPDIR."
)
def demo(path: Path | None) -> None:
    """Show the whole life of volumes through the real socket of a real server.

    Starts a server on a temporary pool, calls it as a kubelet does, and checks each answer. Exit status 0 if
    every step gave what it must, and nothing is left.
    """
    if os.geteuid() != 0:
        fail("the demo mounts volumes, which needs root: run it with sudo")
    if path is not None and not path.is_dir():
        fail(f"--path: wanted a directory, found none at {path}")
    with _rooms(path, Interrupts()) as rooms:
        _tell(rooms)
    if rooms.left:
        fail(f"something is left in {rooms.place.root}: {rooms.left}")
    click.echo("\nNothing is mounted, and nothing is left.")


@dataclass
class _Rooms:
    """Where the demo takes place. `left`: what could not be removed, in words; empty if nothing."""

    place: Place
    server: Child
    run: Path
    left: str = ""


class _KnownChild(Child):
    """A server that no signal can start without our knowing of it."""

    def __init__(self, run: Path, interrupts: Interrupts) -> None:
        super().__init__(run / "config.yaml", run / "csi.sock", run / "serve.log")
        self._interrupts = interrupts

    def launch(self) -> None:
        self._interrupts.hold()
        try:
            super().launch()
        finally:
            self._interrupts.let_go()


@contextmanager
def _rooms(path: Path | None, interrupts: Interrupts) -> Iterator[_Rooms]:
    """Make a folder for volumes and one for the server, and remove both whatever happens."""
    interrupts.hold()
    place = Place(Path(tempfile.mkdtemp(prefix="csi-local-path-demo-", dir=path)))
    run = Path(tempfile.mkdtemp(prefix="csi-run-"))  # a socket's path must be short
    (run / "config.yaml").write_text(json.dumps(place.config()))
    rooms = _Rooms(place, _KnownChild(run, interrupts), run)
    try:
        interrupts.let_go()
        yield rooms
    finally:
        interrupts.hold()  # an impatient second one would leave mounts behind
        _clean_up(rooms)


def _tell(rooms: _Rooms) -> None:
    try:
        Story(rooms.place, rooms.server).tell()
    except (StoryError, ChildFailedError) as error:
        log = rooms.server.log_tail()
        fail(f"the demo ended early: {error}" + (f"\n\nThe server's last lines:\n{log}" if log else ""))
    except KeyboardInterrupt:
        raise click.Abort from None


def _clean_up(rooms: _Rooms) -> None:
    """End the server, undo mounts that an early end left, and remove both folders."""
    rooms.server.stop()
    for mount in reversed(mounts_below(rooms.place.root)):
        subprocess.run(["umount", "--", mount], check=False, stdout=sys.stderr)
    left = mounts_below(rooms.place.root)
    if left:  # removing files would now reach into a volume that somebody still uses
        rooms.left = f"mounted: {', '.join(left)}"
        return
    shutil.rmtree(rooms.place.root, ignore_errors=True)
    shutil.rmtree(rooms.run, ignore_errors=True)
    rooms.left = ", ".join(str(folder) for folder in (rooms.place.root, rooms.run) if folder.exists())
