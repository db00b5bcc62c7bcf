"""Somebody in the middle: passes bytes on, and keeps what the caller sent."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Relay:
    """Listens on loopback, passes each connection on to `target`, and keeps what each caller sent in `heard`."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._listening]
        self.port: int = self._listening.getsockname()[1]
        self.heard: list[bytearray] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End all connections."""
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(self._target)
                self._open += [near, far]
                self.heard.append(bytearray())
                for pair in ((near, far, self.heard[-1]), (far, near, bytearray())):
                    threading.Thread(target=_pass_on, args=pair, daemon=True).start()


def _pass_on(source: socket.socket, sink: socket.socket, heard: bytearray) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            heard += data
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def relay(target: tuple[str, int]) -> Iterator[Relay]:
    """Stand in the middle for a while."""
    found = Relay(target)
    try:
        yield found
    finally:
        found.close()


def replay(target: tuple[str, int], heard: bytes) -> bytes:
    """Send what was heard to a port again, and give what it says until it hangs up."""
    said = bytearray()
    with socket.create_connection(target, timeout=10) as again:
        again.sendall(heard)
        again.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while data := again.recv(65536):
                said += data
    return bytes(said)
