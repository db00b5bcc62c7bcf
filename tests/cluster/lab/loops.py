"""Loop devices that outlive a node: a power cut detaches them, the end of namespaces does not.

A disk's own device goes by itself with its last mount. One that the driver attached to a file on that disk does
not, and holds the disk.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from tests.cluster.lab.commands import run
from tests.cluster.lab.places import ClusterError, wait_until


def ensure_detached(folder: Path) -> None:
    """Detach the devices of the disks whose images lie below a folder, and of files on those disks."""
    wait_until(lambda: not _rest(folder), f"the loop devices of {folder} are gone")


def _rest(folder: Path) -> list[str]:
    """Detach what must be; gives the devices that are left, for each goes a moment later."""
    asked = run("losetup", "--list", "--json", "--output", "NAME,MAJ:MIN,BACK-MAJ:MIN,BACK-FILE")
    devices = json.loads(asked)["loopdevices"] if asked.strip() else []
    own = {one["maj:min"].strip() for one in devices if (one["back-file"] or "").startswith(f"{folder}/")}
    inner = [one["name"] for one in devices if one["back-maj:min"].strip() in own]
    for name in inner:
        with suppress(ClusterError):  # gone since
            run("losetup", "--detach", name)
    return [*own, *inner]
