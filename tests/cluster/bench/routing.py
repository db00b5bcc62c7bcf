"""What a large cluster costs a controller: the memory and the time of a routed call, and a list's last pages."""

from __future__ import annotations

import urllib.request

from tests.bench.client import Client
from tests.bench.crew import Crew
from tests.bench.figures import p50, timed_ms
from tests.bench.process import resident_bytes
from tests.bench.table import Row
from tests.cluster.bench.simulated import simulated
from tests.cluster.bench.world import ANY_SIZE, NO_FOLDER, World, calling, endpoint_of, pid_of
from tests.cluster.driver import controllers
from tests.cluster.kube import Object
from tests.cluster.lab.places import wait_until
from tests.cluster.lab.pools import disks
from tests.cluster.lab.site import nodes
from tests.cluster.manifests import TOPOLOGY_KEY

MB = 1e6
PAGE = 100
_CALLERS = 10
_FEW = 120  # volumes of a small pool, so that no pool is empty
_REPEATS = 3
_PORT = 9903


def routing(world: World) -> list[Row]:
    """Ask for a volume while few nodes, and while many, renew their Leases, in turns."""
    few: list[float] = []
    many: list[float] = []
    leader = controllers(world.kube)[0]
    with calling(leader) as client:
        volume_id = client.create("bench-routing", {TOPOLOGY_KEY: nodes()[0].name}, **ANY_SIZE).volume_id
        _p50_of(client, volume_id, world.extent.calls)
        before = _resident(leader)
        for _ in range(_REPEATS):
            few.append(_p50_of(client, volume_id, world.extent.calls))
            with simulated(world.extent.leases):
                _await_nodes(leader, len(nodes()) + world.extent.leases)
                many.append(_p50_of(client, volume_id, world.extent.calls))
                after = _resident(leader)
            _await_nodes(leader, len(nodes()))
        few.append(_p50_of(client, volume_id, world.extent.calls))
        client.delete(volume_id)
    return [
        Row("memory-leases", f"added by {world.extent.leases:,} Leases", after - before, "MB", 25, f"{after:.1f} MB"),
        Row.ratio(
            "routing",
            f"routed call p50 while {world.extent.leases:,} simulated nodes renew / with {len(nodes())} nodes",
            many,
            few,
            at_most=1.2,
        ),
    ]


def _p50_of(client: Client, volume_id: str, count: int) -> float:
    return p50([timed_ms(lambda: client.validate(volume_id)) for _ in range(count)])


def _resident(pod: Object) -> float:
    return resident_bytes(pid_of(pod)) / MB


def _await_nodes(pod: Object, count: int) -> None:
    """Wait until a controller knows so many nodes."""
    url = f"http://{pod['status']['podIP']}:{_PORT}/metrics"

    def known() -> bool:
        with urllib.request.urlopen(url, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return any(line.split() == ["csi_local_path_nodes", f"{count}.0"] for line in lines)

    wait_until(known, f"the controller knows {count} nodes")


def listing(world: World) -> list[Row]:
    """List the first and a late page in turns, of volumes that really are there."""
    leader = controllers(world.kube)[0]
    _populate(endpoint_of(leader), world.extent.pages * PAGE)
    with calling(leader) as client:
        token = ""
        for _ in range(world.extent.pages - 1):
            _, token = client.page(PAGE, token)
        late: list[float] = []
        first: list[float] = []
        for _ in range(world.extent.listings):
            first.append(timed_ms(lambda: client.page(PAGE)))
            late.append(timed_ms(lambda: client.page(PAGE, token)))
        assert len(client.page(PAGE, token)[0]) == PAGE, "the late page is not whole"
    return [
        Row.ratio(
            "list",
            f"ListVolumes of {PAGE} entries, page {world.extent.pages} / page 1",
            late,
            first,
            at_most=1.2,
        )
    ]


def _populate(endpoint: str, count: int) -> None:
    """Create so many volumes and some more, most in the first pool of each node and a few in every other one."""
    first = disks(nodes()[0])[0].name
    wanted = [(f"bench-l{n}", nodes()[n % len(nodes())].name, first) for n in range(count)]
    for node in nodes():
        wanted += [(f"bench-l-{disk.name}-{n}", node.name, disk.name) for disk in disks(node)[1:] for n in range(_FEW)]
    with Crew(endpoint, NO_FOLDER, _CALLERS) as crew:
        crew.run(_create, wanted)


def _create(client: Client, wanted: tuple[str, str, str]) -> None:
    name, node, pool = wanted
    client.create(name, {TOPOLOGY_KEY: node}, pool=pool, **ANY_SIZE)
