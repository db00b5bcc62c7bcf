"""The one place where programs are run: those that make and check filesystems, for which there is no system call."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO

# Where they lie, whatever the environment says; an image of a driver may have no PATH at all.
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class CommandError(Exception):
    """A program failed. status: its exit status, negative for a signal, None where it was killed at its deadline."""

    def __init__(self, argv: Sequence[str], status: int | None, output: str) -> None:
        self.argv = tuple(argv)
        self.status = status
        self.output = output
        ended = "was killed at its deadline" if status is None else f"ended with status {status}"
        super().__init__(f"{argv[0]} {ended}: {output.strip() or 'it said nothing'}")


def path_for(fd: int) -> str:
    """Name a descriptor of `pass_fds` to the program that gets it."""
    return f"/proc/self/fd/{fd}"


def installed(program: str) -> bool:
    """Tell whether a program is there."""
    return shutil.which(program, path=_PATH) is not None


@dataclass(frozen=True, slots=True)
class Program:
    """A program that was started."""

    argv: Sequence[str]
    process: subprocess.Popen[bytes]
    output: FileIO

    def end(self, *, deadline_s: float, allowed: Collection[int] = (0,)) -> str:
        """Wait for its end and give what it said on both outputs; it is killed at its deadline.

        CommandError where that happened, or where its status is not `allowed`.
        """
        in_time = _ends(self.process.pid, deadline_s)
        if not in_time:
            self.process.kill()
        status = self.process.wait()
        self.output.seek(0)
        said = self.output.read().decode(errors="replace")
        if not in_time or status not in allowed:
            raise CommandError(self.argv, status if in_time else None, said)
        return said


def _ends(pid: int, deadline_s: float) -> bool:
    """Wait for a child's end, which its descriptor tells at once; with a deadline Popen would look now and then."""
    fd = os.pidfd_open(pid)
    try:
        end = select.poll()
        end.register(fd, select.POLLIN)
        return bool(end.poll(deadline_s * 1000))
    finally:
        os.close(fd)


@contextmanager
def started(argv: Sequence[str], *, pass_fds: Sequence[int] = ()) -> Iterator[Program]:
    """Have a program run beside a block, at whose end it is killed if it has not ended.

    It gets no environment of ours and no descriptors but `pass_fds`. A file that is open here is named to it by
    `path_for`, never by this process's own /proc/PID/fd: should we go on without it, by an error or a kill, the number
    would soon be another file's, and the program would write into that one.
    """
    with (
        open(os.memfd_create("output"), "w+b", buffering=0) as output,
        subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            pass_fds=pass_fds,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={"PATH": _PATH, "LC_ALL": "C"},
            cwd="/",
        ) as process,
    ):
        try:
            yield Program(argv, process, output)
        finally:
            process.kill()  # does nothing to one that was waited for


def run(
    argv: Sequence[str], *, deadline_s: float, allowed: Collection[int] = (0,), pass_fds: Sequence[int] = ()
) -> str:
    """Run a program and give what it said; CommandError as `Program.end` has it."""
    with started(argv, pass_fds=pass_fds) as program:
        return program.end(deadline_s=deadline_s, allowed=allowed)
