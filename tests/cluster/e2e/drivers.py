"""What Kubernetes' external-storage suite is told about the driver, once for each of its backends.

The suite ignores a key that it does not know, without a word: that one took effect shows in the specs that ran
(`Backend.proof`). Capabilities are those of framework/testdriver.go of Kubernetes' test/e2e/storage; growth of a
filesystem is asked for by controllerExpansion and nodeExpansion together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DRIVER = "local-path.csi.dev"

MAX_FILE_BYTES = 100 << 20

_CAP_SYS_RESOURCE = 24  # of <linux/capability.h>
_ALWAYS = (
    "persistence",
    "exec",
    "multipods",
    "fsGroup",
    "topology",
    "capacity",
    "controllerExpansion",
    "nodeExpansion",
    "offlineExpansion",
    "readWriteOncePod",
    "singleNodeVolume",
    "multiplePVsSameID",
)


@dataclass(frozen=True)
class Backend:
    """One definition of the driver: a class, and what is true of its volumes.

    fs_types: that a claim's class may name, '' for none. least: the smallest size. focus: the test suites that suffice
    where not all of them are wanted, a regular expression. proof: parts of names, each of which must have passed.
    """

    name: str
    storage_class: str
    fs_types: Iterable[str] = ("",)
    least: str = "300Mi"  # some specs ask for the least, and then write MAX_FILE_BYTES; and no XFS is smaller
    block: bool = False
    online_growth: bool = True
    inline: bool = False
    focus: str = ""
    proof: tuple[str, ...] = ()

    def definition(self) -> dict[str, Any]:
        """Give the file that the suite reads."""
        capabilities = dict.fromkeys(_ALWAYS, True)
        # Said in either case, for the suite takes silence about onlineExpansion for yes.
        capabilities |= {"block": self.block, "onlineExpansion": self.online_growth}
        return {
            "StorageClass": {"FromExistingClassName": self.storage_class},
            "InlineVolumes": [{"Attributes": {"size": "16Mi"}}] if self.inline else [],
            "DriverInfo": {
                "Name": DRIVER,
                "SupportedSizeRange": {"Min": self.least, "Max": "10Gi"},
                "SupportedFsType": {fs_type: {} for fs_type in self.fs_types},
                "SupportedMountOption": {"noatime": {}, "nodev": {}},
                "MaxFileSize": MAX_FILE_BYTES,
                "RequiredAccessModes": ["ReadWriteOnce"],
                "TopologyKeys": ["topology.local-path.csi.dev/node"],
                "NumAllowedTopologies": 1,
                "StressTestOptions": {"NumPods": 10, "NumRestarts": 5},
                "Capabilities": capabilities,
            },
        }


def _may_grow_mounted_ext4() -> bool:
    """Tell whether root has CAP_SYS_RESOURCE here, without which the kernel lets no mounted ext4 grow."""
    status = Path("/proc/self/status").read_text()
    bounding = next(line for line in status.splitlines() if line.startswith("CapBnd:"))
    return bool(int(bounding.split()[1], 16) >> _CAP_SYS_RESOURCE & 1)


# Where a backend differs from the others: how it is made, filled, mounted, grown and shown as a device. What the suite
# does in between (subPath, fsGroup, access modes) is the same code for all of them.
_OWN = r"(provisioning|volumes|volume-expand|multiVolume|volumeMode|ephemeral|capacity)"

BACKENDS = (
    # Directories have the pool's filesystem, and a class may name it or none. Inline volumes are the installation's,
    # whichever class there is, so once is enough.
    Backend(
        "directory",
        "local-path",
        fs_types=("", "ext4"),
        least="1Mi",
        inline=True,
        proof=("CSI Ephemeral-volume", "volume-expand", "fsgroupchangepolicy", "subPath", "read-write-once-pod"),
    ),
    # No subvolume is a block device: the class lets the driver choose, which makes an image of a raw block volume, on
    # the same pool. Nor may a class of it name another filesystem, or the volume would be an image as well.
    Backend(
        "subvolume",
        "local-path-subvolume",
        block=True,
        focus=_OWN,
        proof=("(default fs)(allowExpansion)", "(block volmode)(allowExpansion)", "while pod is using it"),
    ),
    # A mounted ext4 grows where root is whole. Where it is not, the driver says so, and it grows when it is mounted
    # the next time: as suites call it, offline.
    Backend(
        "image",
        "local-path-image",
        fs_types=("", "ext4", "xfs"),
        block=True,
        online_growth=_may_grow_mounted_ext4(),
        focus=_OWN,
        proof=("Dynamic PV (ext4)", "(default fs)(allowExpansion)", "(block volmode)(allowExpansion)"),
    ),
    # A mounted XFS grows for whoever is root. Its class names a filesystem, and csi-provisioner takes no second name.
    Backend(
        "image-xfs",
        "local-path-image-xfs",
        block=True,
        focus=r"(volume-expand|capacity)",
        proof=("(default fs)(allowExpansion)", "(block volmode)(allowExpansion)", "while pod is using it"),
    ),
)
