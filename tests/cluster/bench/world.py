"""What every part needs: the cluster's API twice, and the sockets and processes of the driver's containers."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from csi.cluster.api import Api
from tests.bench.client import Client
from tests.cluster.bench.extent import Extent
from tests.cluster.driver import container_id
from tests.cluster.kube import Kube, Object
from tests.cluster.lab.places import wait_until
from tests.cluster.scene import Scene

# Volumes of calls that no claim makes are plain directories, as those of the claims are.
ANY_SIZE = {"enforce": "besteffort"}
NO_FOLDER = Path("/nonexistent")  # of a client that publishes nothing


@dataclass(frozen=True)
class World:
    """kube: for what is not timed; api: of the driver itself, paths and JSON, for what is."""

    kube: Kube
    api: Api
    extent: Extent

    @contextmanager
    def scene(self) -> Iterator[Scene]:
        """Give a namespace; in the end all in it goes, with its volumes."""
        scene = Scene(self.kube, f"bench-{secrets.token_hex(3)}")
        try:
            yield scene
        finally:
            scene.clear()


def pid_of(pod: Object, container: str = "driver") -> int:
    """Give the process of a pod's container, as this machine counts."""
    wanted = container_id(pod, container).encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):  # it ended
                if wanted in (entry / "cgroup").read_bytes():
                    return int(entry.name)
    raise ProcessLookupError(f"{pod['metadata']['name']}: no process is in container {container}")


def endpoint_of(pod: Object) -> str:
    """Give the socket of a pod's driver, whose path in the container CSI_ENDPOINT tells."""
    (driver,) = (one for one in pod["spec"]["containers"] if one["name"] == "driver")
    (socket,) = (one["value"] for one in driver["env"] if one["name"] == "CSI_ENDPOINT")
    return f"unix:///proc/{pid_of(pod)}/root{socket.removeprefix('unix://')}"


@contextmanager
def calling(pod: Object) -> Iterator[Client]:
    """Have a caller of a pod's driver, once it is ready."""
    endpoint = endpoint_of(pod)
    wait_until(Path(endpoint.removeprefix("unix://")).exists, f"{endpoint} is there")
    client = Client(endpoint, NO_FOLDER)
    try:
        wait_until(client.probe, f"{endpoint} is ready")
        yield client
    finally:
        client.close()
