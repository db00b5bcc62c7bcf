"""Reads and writes in a volume beside those in a plain directory of the same filesystem, by fio."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.client import Client
from tests.bench.figures import p50, spread
from tests.bench.table import Row
from tests.bench.target import delete, stage, unstage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.extent import Extent
    from tests.bench.site import OwnSite
    from tests.bench.target import Target

ENGINE = "libaio"
FILE_BYTES = 1 << 30
VOLUME_BYTES = 2 << 30  # on btrfs what is overwritten counts until the commit


@dataclass(frozen=True, slots=True)
class Load:
    """What fio does. at_least: share of the plain directory's operations that a volume must do, by its backend."""

    name: str
    mode: str  # of fio's --rw
    block: str
    depth: int
    at_least: dict[str, float]

    def __str__(self) -> str:
        """Say it as people do."""
        return f"{self.block} {self.mode} of depth {self.depth}"


# Small ones are reads and writes by halves.
LOADS = (
    Load("small", "randrw", "4k", 1, {"subvolume": 0.95, "image": 0.5}),
    Load("small-deep", "randrw", "4k", 16, {"subvolume": 0.95, "image": 0.55}),
    Load("read", "read", "1M", 4, {"subvolume": 0.95, "image": 0.85}),
    Load("write", "write", "1M", 4, {"subvolume": 0.95, "image": 0.6}),
)


def loading(load: Load, backend: str, site: OwnSite, extent: Extent) -> list[Row]:
    """Run one load in a volume and in a plain directory, in turns."""
    with site.serving(f"{backend}-{load.name}") as target, _published(target, backend) as volume:
        bare = site.disk / "bare"
        bare.mkdir()
        try:
            inside, outside = _alternated((volume, bare), load, extent)
        finally:
            shutil.rmtree(bare)
    return [
        Row(
            f"{backend}-{load.name}",
            f"{backend}: {load} in a volume / in the bare directory",
            p50(inside) / p50(outside),
            at_least=load.at_least[backend],
            note=f"{p50(inside):.0f} / {p50(outside):.0f} per s; {len(inside)} runs of {extent.load_s} s, {ENGINE}",
            details={"inside_per_s": spread(inside), "bare_per_s": spread(outside)},
        )
    ]


@contextmanager
def _published(target: Target, backend: str) -> Iterator[Path]:
    parameters = {"backend": backend, "enforce": "required"}
    with target.crew() as crew:
        volumes = crew.run(
            lambda client, name: client.create(name, None, VOLUME_BYTES, **parameters), target.new_names(1)
        )
        stage(crew, volumes)
        crew.run(Client.publish, volumes)
        target.rest()
        try:
            yield Path(volumes[0].target)
        finally:
            crew.run(Client.unpublish, volumes)
            unstage(crew, volumes)
            delete(crew, volumes)
            target.rest()


def _alternated(places: tuple[Path, Path], load: Load, extent: Extent) -> tuple[list[float], list[float]]:
    """Give the operations per second of each run; who begins changes, so that neither profits from it."""
    found: tuple[list[float], list[float]] = ([], [])
    for place in places:
        _write_whole(place)
    for turn in range(extent.load_runs):
        for side in (0, 1) if turn % 2 == 0 else (1, 0):
            found[side].append(_run(places[side], load, extent.load_s))
    return found


def _write_whole(folder: Path) -> None:
    """Write the file once, so that no run has to find room for it."""
    _fio(folder, "--rw=write", "--bs=1M", "--iodepth=4", "--end_fsync=1")


def _run(folder: Path, load: Load, seconds: int) -> float:
    said = _fio(
        folder,
        f"--rw={load.mode}",
        f"--bs={load.block}",
        f"--iodepth={load.depth}",
        "--time_based",
        f"--runtime={seconds}",
    )
    return float(said["read"]["iops"] + said["write"]["iops"])


def _fio(folder: Path, *arguments: str) -> dict[str, Any]:
    command = [
        "fio",
        "--name=load",
        f"--filename={folder}/load",
        f"--size={FILE_BYTES}",
        f"--ioengine={ENGINE}",
        "--direct=1",
        "--randrepeat=0",
        "--refill_buffers",
        "--output-format=json",
        *arguments,
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    job: dict[str, Any] = json.loads(done.stdout)["jobs"][0]
    return job


def loads(backend: str) -> dict[str, Any]:
    """Give the parts of the bench for one backend, by name."""
    return {f"{backend}-{load.name}": partial(loading, load, backend) for load in LOADS}
