"""`python -m tests.cluster.bench.simulated COUNT`: agents that are not there, whose Leases are.

It announces them, says so, and renews each once a minute until its input ends: a process of its own, so that what is
measured beside it waits for no lock of its.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic

from csi.cluster import announcement, leases
from csi.cluster.announcement import SCHEMA, Announcement
from csi.cluster.api import Api, KubernetesApi
from csi.cluster.certificates import new_credentials
from csi.cluster.renewing import RENEW_S
from provisioner.facts import PoolFacts
from tests.cluster.lab.commands import run
from tests.cluster.lab.lifecycle import kubectl
from tests.cluster.lab.site import NAMESPACE, ROOT

LABELS = {"bench": "simulated"}
_SAID = "announced"
_AT_ONCE = 8
_ROOM_BYTES = 1 << 40


@contextmanager
def simulated(count: int) -> Iterator[None]:
    """Have so many for the length of a block."""
    command = [sys.executable, "-m", "tests.cluster.bench.simulated", str(count)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline().strip() == _SAID, "the simulated nodes are not announced"
            yield
        finally:
            process.stdin.close()
            process.wait()
            (label,) = LABELS.items()
            # One call for all: by name kubectl's own limits would let it take minutes.
            run(*kubectl("delete", "--raw", f"{leases.path_of(NAMESPACE)}?labelSelector={'='.join(label)}"))


class Agent:
    """One of them: what it says stays the same, but for the time."""

    def __init__(self, api: Api, number: int) -> None:
        self._api, self._name = api, f"simulated-{number:05}"
        pool = PoolFacts("main", f"{number:016x}", "ext4", _ROOM_BYTES, 1 << 30, means=("directory", "image"))
        address = f"192.0.2.{number % 254 + 1}:9901"  # TEST-NET-1: nobody is there
        said = Announcement(SCHEMA, new_credentials().certificate.decode(), address, (pool,))
        self._said = {announcement.ANNOTATION: announcement.encode(said)}

    def renew(self) -> None:
        """Write the Lease."""
        name = leases.name_for(self._name)
        body = leases.body(NAMESPACE, name, self._said, leases.spec_of(self._name, 3 * RENEW_S))
        body["metadata"]["labels"] = LABELS
        self._api.apply(leases.path_of(NAMESPACE, name), body, "csi-local-path")


def main() -> None:
    """Announce, then renew evenly over the time."""
    api = KubernetesApi()
    agents = [Agent(api, number) for number in range(int(sys.argv[1]))]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(Agent.renew, agents))
    print(_SAID, flush=True)
    ended = threading.Event()
    threading.Thread(target=_await_end, args=[ended], daemon=True).start()
    due = monotonic()
    for agent in itertools.cycle(agents):
        due += RENEW_S / len(agents)
        if ended.wait(max(0.0, due - monotonic())):
            return
        agent.renew()


def _await_end(ended: threading.Event) -> None:
    sys.stdin.read()
    ended.set()


if __name__ == "__main__":
    main()
