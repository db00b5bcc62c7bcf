"""The judge's end of `tests.chaos.operation`: one lane of the matrix, with a disk and mounts of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from tests.support.patience import PATIENCE
from tests.support.strace import SystemCall, attached, parse

_REPOSITORY = Path(__file__).parents[2]
# By name: the size of a lane's disk, the options of mount(8), and what makes its filesystem.
_DISKS = {
    "ext4": ("64M", "loop", "mkfs.ext4 -q -F"),
    "btrfs": ("256M", "loop", "mkfs.btrfs -q -K"),
    "quota on xfs": ("300M", "loop,prjquota", "mkfs.xfs -q -K"),
    "quota on ext4": ("64M", "loop,prjquota", "mkfs.ext4 -q -F -O project,quota -E quotatype=prjquota"),
}
# All mounts of a lane live in its own namespace, and end with it however it ends. Its disk is in memory, for speed.
_START = """
set -e
mount -t tmpfs lane "$1"
mkdir "$1/mount"
truncate -s "$2" "$1/disk"
$4 "$1/disk" > /dev/null
mount -o "$3" "$1/disk" "$1/mount"
# Nothing else is mounted here: reading the table of mounts takes the same calls each time, and no
# copy of somebody's loop mount keeps it busy after its owner has let it go.
awk -v lane="$1" '$2 !~ "^(/|/proc|/sys|/dev)$" && index($2, lane) != 1 && index(lane, $2 "/") != 1 {print $2}' \
    /proc/self/mounts | tac | xargs -r umount -l
exec "$5" -E -m tests.chaos.operation
"""
_UNSHARE = ["unshare", "--mount", "--propagation", "private"]
MARK = "sched_get_priority_max"


@dataclass(slots=True)
class Outcome:
    """What one operation did. refused, refused_meanwhile: an error's class and those above; status: of waitpid(2)."""

    place: Path
    acknowledged: str | None = None
    refused: list[str] = field(default_factory=list)
    message: str = ""
    trace: str = ""
    retried: str | None = None
    refused_meanwhile: list[str] = field(default_factory=list)
    refused_again: str = ""
    crashed: str = ""
    status: int = 0
    calls: list[SystemCall] = field(default_factory=list)

    @property
    def answer(self) -> str | None:
        """Give what the caller was told at last, None where that was no success."""
        return self.retried if self.acknowledged is None else self.acknowledged

    @property
    def killed_by(self) -> int:
        """Give the signal that ended the process, 0 if none."""
        return os.WTERMSIG(self.status) if os.WIFSIGNALED(self.status) else 0


class Lane:
    """One process that performs operations, one after the other."""

    def __init__(self, directory: Path, disk: str = "ext4") -> None:
        """Start it; files lie in `directory`, which must be empty. disk: the kind that pools lie on."""
        self.disk = disk
        self._directory = directory
        self._places = count(1000)  # paths of one length
        self._process = subprocess.Popen(
            [*_UNSHARE, "sh", "-c", _START, "sh", str(directory), *_DISKS[disk], sys.executable],
            cwd=_REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip
        self.scenarios: list[str] = self._hear()["scenarios"]

    def record(self, scenario: str) -> Outcome:
        """Perform `scenario` undisturbed, listing its system calls."""
        return self._perform(scenario, {})

    def disturb(self, scenario: str, inject: str) -> Outcome:
        """Perform `scenario` with one injection (`tests.support.strace`)."""
        return self._perform(scenario, {}, trace=f"{inject.partition(':')[0]},{MARK}", inject=inject)

    def deny(self, scenario: str, number: int, error: int) -> Outcome:
        """Perform `scenario` with system call `number` failing each time, or killing where `error` is 0."""
        return self._perform(scenario, {"deny": number, "error": error})

    def let_fail(self, scenario: str, inject: str) -> Outcome:
        """Perform `scenario` under a fault that stays, retry it, end the fault, and retry it again."""
        return self._perform(scenario, {"fault_stays": True}, trace=f"fsync,{MARK}", inject=inject)

    def check(self, scenario: str, outcome: Outcome) -> str:
        """Have `scenario` check what is left; gives what is wrong, '' if nothing."""
        self._ask(do="check", scenario=scenario, place=str(outcome.place), answer=outcome.answer)
        facts = self._hear_until("ended")
        if facts["ended"] or "checked" not in facts:
            return f"the check crashed: {facts}"
        return str(facts["checked"])

    def clean(self, scenario: str, place: Path) -> None:
        """Have everything below `place` removed."""
        self._ask(do="clean", scenario=scenario, place=str(place))
        facts = self._hear_until("ended")
        assert facts["ended"] == 0, facts

    def close(self) -> None:
        """End the lane; its mounts go with it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(timeout=30 * PATIENCE) == 0
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _perform(self, scenario: str, request: dict[str, Any], *, trace: str = "all", inject: str = "") -> Outcome:
        outcome = Outcome(self._directory / "mount" / str(next(self._places)))
        self._ask(do="perform", scenario=scenario, place=str(outcome.place), **request)
        facts = self._hear()
        assert "ready" in facts, facts
        output = self._directory / "trace"
        with attached(facts["ready"], output, trace=trace, inject=inject):
            os.kill(facts["ready"], signal.SIGUSR1)
            told = self._hear_until("refused_meanwhile", "ended")
        if "ended" not in told:
            os.kill(facts["ready"], signal.SIGUSR1)
            told |= self._hear_until("ended")
        outcome.status = told.pop("ended")
        for name, value in told.items():
            setattr(outcome, name, value)
        outcome.calls = parse(output.read_text(errors="replace"))
        return outcome

    def _ask(self, **request: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the lane ended, status {self._process.wait()}"
        facts: dict[str, Any] = json.loads(line)
        return facts

    def _hear_until(self, *keys: str) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        while not facts.keys() & set(keys):
            facts |= self._hear()
        return facts
