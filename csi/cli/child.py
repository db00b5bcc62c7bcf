"""A `serve` of our own as a child process, and a client of its socket."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import grpc

from csi.pb import csi_pb2, csi_pb2_grpc

if TYPE_CHECKING:
    from pathlib import Path

# A channel of its own for each start, that looks again at once: the usual back-off begins with a second.
_CHANNEL_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 100),
)
_POLL_S = 0.02


class ChildFailedError(Exception):
    """The server ended, or did not get ready; the message carries the end of its log."""


class Child:
    """A server process that can be started, stopped, killed and started again.

    `config`: its YAML file. `socket`: path of its socket. `log`: file that its stderr is added to.
    """

    def __init__(self, config: Path, socket: Path, log: Path, options: tuple[str, ...] = ()) -> None:
        self.socket = socket
        self.endpoint = f"unix://{socket}"
        self._log = log
        self._argv = [sys.executable, "-m", "csi.cli", "serve", "--config", str(config)]
        self._argv += ["--endpoint", self.endpoint, *options]
        self.process: subprocess.Popen[bytes] | None = None

    def _connect(self) -> None:
        self.channel = grpc.insecure_channel(self.endpoint, _CHANNEL_OPTIONS)
        self.identity = csi_pb2_grpc.IdentityStub(self.channel)
        self.controller = csi_pb2_grpc.ControllerStub(self.channel)
        self.node = csi_pb2_grpc.NodeStub(self.channel)

    def start(self, timeout_s: float = 30.0) -> None:
        """Start the server and wait until `Probe` says ready; ChildFailedError if it does not."""
        self.launch()
        self.wait_ready(timeout_s)

    def launch(self) -> None:
        """Start the process, without waiting, and a new channel to it.

        It gets a process group of its own: a Ctrl-C at the terminal is the parent's to handle.
        """
        self._connect()
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
            )

    def wait_ready(self, timeout_s: float = 30.0) -> None:
        """Wait until `Probe` says ready."""
        end = time.monotonic() + timeout_s
        while not self._is_ready():
            if self.process is None or self.process.poll() is not None:
                raise ChildFailedError(f"the server ended before it was ready:\n{self.log_tail()}")
            if time.monotonic() > end:
                raise ChildFailedError(f"the server was not ready in {timeout_s:g} s:\n{self.log_tail()}")
            time.sleep(_POLL_S)

    def _is_ready(self) -> bool:
        try:
            answer = self.identity.Probe(csi_pb2.ProbeRequest(), timeout=1)
        except grpc.RpcError:
            return False
        return answer.ready.value or not answer.HasField("ready")

    def stop(self, timeout_s: float = 30.0) -> int | None:
        """Ask the server to end and give its exit status; kills it after `timeout_s`; None if none ran."""
        if self.process is None:
            return None
        self.process.terminate()
        try:
            status = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self._forget()
        return status

    def kill(self) -> None:
        """End the server with SIGKILL, as a power cut of the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self._forget()

    def _forget(self) -> None:
        self.channel.close()
        self.process = None

    def log_tail(self, size_bytes: int = 4000) -> str:
        """Give the end of what the server wrote."""
        return self._log.read_bytes()[-size_bytes:].decode(errors="replace") if self._log.exists() else ""
