"""Names of volumes become names of folders, and both become ids.

A `volume_id` is `<pool id>.<folder>`: enough to route a call and to notice a wrong disk, with no other
store. CSI limits it to 128 bytes (spec, "Size Limits"); ours end at 113, so that a paging token, which
carries an id, fits the same limit.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass

from provisioner.errors import VolumeNotFound

POOL_NAME = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"  # of the configuration; the form of a DNS label

# Lower case only: a pool may lie on a filesystem that folds case.
_PLAIN = re.compile(r"[a-z0-9][a-z0-9._-]{0,95}")
_DIGEST = re.compile(r"_[0-9a-f]{64}")
_POOL_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True, order=True)
class VolumeId:
    """A parsed volume_id."""

    pool_id: str
    folder: str

    def __str__(self) -> str:
        return f"{self.pool_id}.{self.folder}"


def new_pool_id() -> str:
    """64 random bits, in hexadecimal."""
    return secrets.token_hex(8)


def is_pool_id(text: str) -> bool:
    """Tell whether `text` has the form of a pool id."""
    return _POOL_ID.fullmatch(text) is not None


def is_folder(text: str) -> bool:
    """Tell whether `text` is a name that `folder_for` could have given."""
    return (_PLAIN.fullmatch(text) or _DIGEST.fullmatch(text)) is not None


def entry_for(folder: str, deleted: str) -> str:
    """Name the entry of the trash that a folder becomes. deleted: when, without a dot."""
    return f"{folder}.{deleted}"


def folder_of_entry(entry: str) -> str:
    """Name the folder that an entry of the trash was."""
    return entry.rpartition(".")[0]


def folder_for(name: str) -> str:
    """Give the folder of a volume's name: the name itself where it is safe, else its digest.

    A digest begins with an underscore, which no plain name does.
    """
    if _PLAIN.fullmatch(name):
        return name
    return "_" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def parse_volume_id(volume_id: str) -> VolumeId | None:
    """Parse an id; None means that it was never ours."""
    pool_id, _, folder = volume_id.partition(".")
    if is_pool_id(pool_id) and is_folder(folder):
        return VolumeId(pool_id, folder)
    return None


def identify(volume_id: str) -> VolumeId:
    """Parse a volume_id; VolumeNotFound where it was never ours."""
    parsed = parse_volume_id(volume_id)
    if parsed is None:
        raise VolumeNotFound(f"volume {volume_id!r}: no id of this driver; wanted '<16 hexadecimal digits>.<name>'")
    return parsed
