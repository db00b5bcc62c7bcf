"""Creating an image, beside the one program that it cannot do without."""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from provisioner.filesystems import KINDS
from tests.bench.figures import timed_ms
from tests.bench.table import Row

if TYPE_CHECKING:
    from tests.bench.extent import Extent
    from tests.bench.site import OwnSite

SIZE_BYTES = 10 << 30
PARAMETERS = {"backend": "image", "fsType": "ext4", "thin": "true"}


def images(site: OwnSite, extent: Extent) -> list[Row]:
    """Create sparse ext4 images and run mkfs.ext4 on sparse files, in turns on one filesystem.

    The files stay until the end, as the volumes do: in the room of one that was just removed the next would be written
    faster than any new file, for the sparse file below the filesystem has that room already.
    """
    created: list[float] = []
    made: list[float] = []
    with site.serving("images") as target, TemporaryDirectory(dir=site.disk) as folder:
        client = target.client()
        for name in target.new_names(extent.images):
            file = Path(folder, f"{name}.img")
            with file.open("xb") as sparse:
                sparse.truncate(SIZE_BYTES)
            made.append(timed_ms(partial(_make_filesystem, file)))
            created.append(timed_ms(partial(client.create, name, None, SIZE_BYTES, **PARAMETERS)))
        client.close()
    return [
        Row.ratio(
            "image-create",
            "image: create p50 of a sparse ext4 of 10 GiB / mkfs.ext4 alone on such a file",
            created,
            made,
            at_most=1.3,
        )
    ]


def _make_filesystem(file: Path) -> None:
    """Run it with the very arguments of a volume: with others it does other work."""
    subprocess.run([*KINDS["ext4"].make, str(file)], check=True)
