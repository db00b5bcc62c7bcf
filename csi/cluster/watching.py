"""Leases followed in the background: the whole list first, then change by change, and anew after every gap."""

from __future__ import annotations

import random
import threading
from time import monotonic
from typing import TYPE_CHECKING, Protocol

import msgspec
import structlog

from csi.cluster import leases
from csi.cluster.api import ApiError
from csi.cluster.leases import Lease
from csi.cluster.pauses import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi.cluster.api import Api, Query

log = structlog.get_logger()

_PAGE = 500
_LONGEST_PAUSE_S = 30.0
_WATCH_S = (240, 480)  # differs, so that not all watches of a large cluster end at once
_HURRY_S = 10.0


class Follower(Protocol):
    """Who wants to know. Called by one thread only."""

    def replaced(self, found: list[Lease], /) -> None:
        """Take the whole list; what is not in it is gone."""

    def changed(self, lease: Lease, /) -> None:
        """Take a new Lease, or a Lease's new state."""

    def removed(self, lease: Lease, /) -> None:
        """Forget a Lease."""

    def lost(self) -> None:
        """Know that from now on nothing is seen, until `replaced`."""


class _ListMetadata(msgspec.Struct, frozen=True, rename={"resource_version": "resourceVersion", "go_on": "continue"}):
    resource_version: str = ""
    go_on: str = ""


class _List(msgspec.Struct):
    metadata: _ListMetadata = _ListMetadata()
    items: list[Lease] = []


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Refusal(msgspec.Struct):
    code: int = 0
    message: str = ""


_LIST = msgspec.json.Decoder(_List)
_EVENT = msgspec.json.Decoder(_Event)
_REFUSAL = msgspec.json.Decoder(_Refusal)


class Watching:
    """Follows the Leases of a namespace, or the one called `name` (which is all that a node may read)."""

    def __init__(self, api: Callable[[], Api], namespace: str, follower: Follower, name: str = "") -> None:
        self._api, self._follower = api, follower
        self._path = leases.path_of(namespace)
        self._only: Query = {"fieldSelector": f"metadata.name={name}"} if name else {}
        self._stopping = False
        self._wake = threading.Event()
        self._hurried_at = -_HURRY_S
        self._thread = threading.Thread(target=self._run, name=f"watch {name or 'leases'}", daemon=True)
        self.is_current = False

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """Follow no more; a read that waits for the server is left to end by itself."""
        self._stopping = True
        self._wake.set()

    def hurry(self) -> None:
        """Try again at once if nothing is seen just now; at most every few seconds, however often this is called."""
        if not self.is_current and monotonic() - self._hurried_at >= _HURRY_S:
            self._hurried_at = monotonic()
            self._wake.set()

    def _run(self) -> None:
        backoff = Backoff(0.5, _LONGEST_PAUSE_S)
        while not self._stopping:
            try:
                self._follow(backoff)
            except (ApiError, msgspec.MsgspecError, UnicodeError) as error:
                if not getattr(error, "is_expired", False):
                    log.warning("leases not followed", path=self._path, error=str(error))
            except Exception:
                log.exception("leases not followed", path=self._path)
            if self.is_current:
                self.is_current = False
                self._follower.lost()
            self._wake.wait(backoff.next())
            if not self._stopping:
                self._wake.clear()

    def _follow(self, backoff: Backoff) -> None:
        version = self._list()
        self.is_current = True
        while not self._stopping:
            version = self._watch(version)
            backoff.reset()

    def _list(self) -> str:
        found: list[Lease] = []
        query: Query = {**self._only, "limit": _PAGE}
        while True:
            page = _LIST.decode(self._api().get(self._path, query))
            found += page.items
            if not page.metadata.go_on:
                self._follower.replaced(found)
                return page.metadata.resource_version
            query["continue"] = page.metadata.go_on

    def _watch(self, version: str) -> str:
        """Take changes until the server ends the watch; gives the version to go on from."""
        seconds = random.randint(*_WATCH_S)  # noqa: S311 - spreads load
        query: Query = {**self._only, "resourceVersion": version, "timeoutSeconds": seconds}
        for line in self._api().watch(self._path, query):
            if self._stopping:
                break
            version = self._take(line)
        return version

    def _take(self, line: bytes) -> str:
        event = _EVENT.decode(line)
        if event.type == "ERROR":
            refusal = _REFUSAL.decode(event.object)
            raise ApiError(refusal.code, refusal.message)
        lease = leases.decode(event.object)
        if event.type == "DELETED":
            self._follower.removed(lease)
        elif event.type in ("ADDED", "MODIFIED"):
            self._follower.changed(lease)
        return lease.metadata.resource_version
