"""A real `serve` in a process of its own, for whoever wants to call it: tests, judges, benches.

Needs no pytest. Uses the program's own `Child`, so that the demo and the tests start servers one way.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csi.cli.child import Child
from tests.support.patience import PATIENCE

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    import grpc

    from csi.pb import csi_pb2_grpc

_LONGEST_SOCKET = 107  # bytes of sockaddr_un.sun_path, less the final zero
_START_S = _END_S = 30.0 * PATIENCE


class Served:
    """A running server. After `kill` or `stop` it can be `start`ed again with the same pools."""

    def __init__(self, config: dict[str, Any], tmp: Path, socket: Path, options: tuple[str, ...]) -> None:
        self.tmp = tmp
        self.config_path = tmp / "config.yaml"
        self.socket = socket
        self.log = tmp / "serve.log"
        self.configure(config)
        self._child = Child(self.config_path, socket, self.log, options)

    def configure(self, config: dict[str, Any]) -> None:
        """Write another configuration; it counts from the next start."""
        self.config_path.write_text(json.dumps(config))  # every JSON text is YAML

    @property
    def endpoint(self) -> str:
        """What a client dials, `unix:///...`."""
        return self._child.endpoint

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The server's process; an error while none runs."""
        assert self._child.process is not None, "no server runs"
        return self._child.process

    @property
    def channel(self) -> grpc.Channel:
        """A channel to the socket; a new one after each stop or kill."""
        return self._child.channel

    @property
    def identity(self) -> csi_pb2_grpc.IdentityStub:
        """Stub of csi.v1.Identity."""
        return self._child.identity

    @property
    def controller(self) -> csi_pb2_grpc.ControllerStub:
        """Stub of csi.v1.Controller."""
        return self._child.controller

    @property
    def node(self) -> csi_pb2_grpc.NodeStub:
        """Stub of csi.v1.Node."""
        return self._child.node

    def start(self, timeout_s: float = _START_S) -> None:
        """Start and wait until `Probe` says ready; ChildFailedError carries the log if it never does."""
        self._child.start(timeout_s)

    def launch(self) -> None:
        """Start without waiting."""
        self._child.launch()

    def wait_ready(self, timeout_s: float = _START_S) -> None:
        """Wait until `Probe` says ready."""
        self._child.wait_ready(timeout_s)

    def stop(self, timeout_s: float = _END_S) -> int | None:
        """SIGTERM; gives the exit status (None if none ran)."""
        return self._child.stop(timeout_s)

    def kill(self) -> None:
        """SIGKILL."""
        self._child.kill()

    def log_text(self) -> str:
        """Everything that the server wrote, over all its starts."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def one_pool(tmp: Path, **pool: Any) -> dict[str, Any]:
    """Give a configuration with one pool in `tmp/pool` and targets allowed below `tmp`.

    Keys of `pool` override the pool's; a `path` that is given must exist.
    """
    (tmp / "pool").mkdir(exist_ok=True)
    settings = {"name": "default", "path": str(tmp / "pool"), "init": "if-empty", "enforce": "besteffort", **pool}
    return {"targetRoots": [str(tmp)], "pools": [settings]}


@contextmanager
def served(config: dict[str, Any], tmp: Path, *, options: tuple[str, ...] = (), start: bool = True) -> Iterator[Served]:
    """Serve `config`; files of the server (configuration, socket, log) lie in `tmp`.

    options: further arguments of `serve`. At the end the server is stopped if it still runs.
    """
    socket, short = tmp / "csi.sock", None
    if len(bytes(socket)) > _LONGEST_SOCKET:
        short = Path(tempfile.mkdtemp(prefix="csi-"))
        socket = short / "csi.sock"
    server = Served(config, tmp, socket, options)
    try:
        if start:
            server.start()
        yield server
    finally:
        server.stop()
        if short is not None:
            shutil.rmtree(short)
