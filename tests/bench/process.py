"""What a server's process costs: its CPU time, its memory, its system calls."""

from __future__ import annotations

import os
import socket
import struct
import time
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_SCHED = 2  # CPUCLOCK_SCHED of <linux/posix-timers.h>: utime + stime, in nanoseconds


def server_pid(endpoint: str) -> int:
    """Give the process that listens on `unix://PATH` (SO_PEERCRED, unix(7)); OSError if none does."""
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(endpoint.removeprefix("unix://"))
        credentials = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", credentials)[0]
    return pid


def cpu_ns(pid: int) -> int:
    """Give the CPU time of a process, all threads and ended children, kernel time included.

    The process's own part comes from its CPU clock (clock_getcpuclockid(3)), to the nanosecond: ticks
    of 10 ms, as /proc/PID/stat has them, are as long as ten calls. Children that the server ran (a peer
    may call mount(8)) are known to the tick.
    """
    own = time.clock_gettime_ns((~pid << 3) | _SCHED)
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    children_ticks = int(fields[13]) + int(fields[14])
    return own + children_ticks * 1_000_000_000 // _TICKS_PER_S


def resident_bytes(pid: int) -> int:
    """Give the resident memory of a process (VmRSS of /proc/PID/status)."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has no memory: it has ended")


def settle(pid: int, *, share: float = 0.02, timeout_s: float = 90.0) -> bool:
    """Wait until the server uses less than `share` of a core; tells whether it came to that.

    What was asked of it earlier may still be going on in its background threads.
    """
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        began, before = time.monotonic_ns(), cpu_ns(pid)
        time.sleep(0.3)
        if cpu_ns(pid) - before < share * (time.monotonic_ns() - began):
            return True
    return False
