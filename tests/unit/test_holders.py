"""The sentence about who holds a mount. Real processes hold real mounts in tests/linux."""

from __future__ import annotations

import subprocess
import sys

from provisioner.holders import Holder, describe, holders_of
from provisioner.linux.statx import statx


def test_each_holder_is_named() -> None:
    holders = [Holder(17, "nginx", "cwd"), Holder(0, "/mnt/inside", "mount"), Holder(18, "tail", "open file")]
    assert describe(holders) == (
        "held by process 17 (nginx, cwd), by a mount at /mnt/inside, by process 18 (tail, open file)"
    )


def test_no_holder_is_no_end_of_the_sentence() -> None:
    assert describe([]).startswith("held by nothing that can be seen from here")


def test_a_mount_that_is_not_there_is_held_by_nobody() -> None:
    assert holders_of(2**31 - 1, 0) == []


def test_the_search_is_bounded() -> None:
    """Everything sits in the root mount."""
    found = statx("/")
    assert len(holders_of(found.mnt_id, found.dev, limit=1)) == 1
    assert all(holder.how == "mount" for holder in holders_of(found.mnt_id, found.dev, patience_s=-1))


def test_psutil_is_not_loaded_for_nothing() -> None:
    """It costs memory that a message which most processes never need is not worth."""
    program = "import sys, provisioner.holders; sys.exit('psutil' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
