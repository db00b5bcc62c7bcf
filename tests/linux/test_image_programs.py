"""Many checks at once, as after a power cut, are no disk that hangs: they are bounded, and all else is served."""

from __future__ import annotations

import subprocess

import pytest

from provisioner.errors import Unavailable
from provisioner.waits import MOST_PROGRAMS, Waits, for_a_program
from tests.support.crowd import crowd
from tests.support.limited import MIB
from tests.support.means import Served

SIZE = 8 * MIB


def test_programs_that_take_long_let_all_else_be_served(served: Served) -> None:
    clean, dirty = served.create("clean", SIZE), served.create("dirty", SIZE)
    image = served.control / "volumes/dirty/disk.img"
    subprocess.run(["debugfs", "-w", "-R", "set_super_value state 2", image], check=True, capture_output=True)
    before = image.read_bytes()
    pool = served.provisioner._pools.pools[0]
    pool._waits = Waits(hangs_after_s=0.0)
    with crowd(MOST_PROGRAMS, pool.use, for_a_program):
        assert (pool.is_away(), pool.problem()) == (False, "")
        served.publish(clean)
        for call in (lambda: served.publish(dirty), lambda: served.create("new", SIZE)):
            with pytest.raises(Unavailable, match="being made, checked or grown already; retry"):
                call()
        assert image.read_bytes() == before
        assert [volume.name for volume in served.provisioner.volumes.list(0, "").volumes] == ["clean", "dirty"]
        assert served.provisioner.volumes.storage_health() == []  # it is not taken for ill
    served.publish(dirty)
    served.create("new", SIZE)
