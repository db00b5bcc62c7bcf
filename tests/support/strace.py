"""strace(1) as a tool: list the system calls of a thread, make one of them fail, or kill right before one.

strace counts `when=N` per thread and per system call number, from the moment it attaches; so does
`parse`. `--seccomp-bpf` is not used: with it the signal comes after the call.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CALL = re.compile(r"(\w+)\(.*")
_RESULT = re.compile(r"\) += (-?\w+|\?)(?: (E[A-Z0-9]+))?")
_ATTACHED = "strace: Process {pid} attached"


class StraceError(Exception):
    """strace did not do what was asked; carries what it wrote."""


@dataclass(frozen=True, slots=True)
class SystemCall:
    """One call in a trace. occurrence: how many of this name its thread had made, this one included."""

    name: str
    occurrence: int
    line: str

    @property
    def error(self) -> str:
        """Name of the errno that it ended with, '' if none."""
        found = _RESULT.search(self.line)
        return (found[2] or "") if found else ""

    @property
    def injected(self) -> bool:
        """Tell whether strace gave the result in the kernel's place."""
        return "(INJECTED)" in self.line

    @property
    def wakes(self) -> bool:
        """Tell whether it is about an eventfd, by which gRPC wakes a thread: how often, depends on who sleeps."""
        return "<anon_inode:[eventfd]>" in self.line

    def __str__(self) -> str:
        return f"{self.name}#{self.occurrence} {self.line}"


def parse(text: str) -> list[SystemCall]:
    """Give the calls of one thread's trace in order."""
    seen: Counter[str] = Counter()
    calls = []
    for line in text.splitlines():
        found = _CALL.match(line)
        if found:
            seen[found[1]] += 1
            calls.append(SystemCall(found[1], seen[found[1]], line))
    return calls


def kill_before(call: SystemCall) -> str:
    """Give the injection that ends the process with SIGKILL instead of making `call`."""
    return f"{call.name}:signal=SIGKILL:when={call.occurrence}"


def fail(call: SystemCall, error: str, *, later_ones_too: bool = False) -> str:
    """Give the injection that makes `call` return `error` ('EIO') without doing anything."""
    return f"{call.name}:error={error}:when={call.occurrence}{'+' if later_ones_too else ''}"


@contextmanager
def attached(
    pid: int, output: Path, *, inject: str = "", trace: str = "all", threads: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """Trace the running process `pid` while the block runs; on leaving, the trace is complete.

    inject: as `kill_before` and `fail` give it. trace: what is written to `output`.
    threads: follow all threads, new ones too, each to a file of its own, `output`.<thread id>.
    A process that still runs at the end of the block is let go unharmed.
    """
    command = ["strace", "-y", "-s", "80", "-o", str(output), "-e", f"trace={trace}", "-p", str(pid)]
    command += ["-e", f"inject={inject}"] if inject else []
    command += ["-ff"] if threads else []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            _wait_attached(process, pid)
            yield process
        finally:
            if process.poll() is None and _alive(pid):
                process.terminate()
            process.communicate(timeout=30 * PATIENCE)


def _wait_attached(process: subprocess.Popen[str], pid: int) -> None:
    assert process.stderr is not None
    line = process.stderr.readline().rstrip()
    if not line.startswith(_ATTACHED.format(pid=pid)):
        raise StraceError(line + process.stderr.read())


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
