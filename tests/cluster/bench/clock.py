"""When objects came into a state, as a watch tells: without asking again and again, and to the millisecond."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from time import perf_counter
from typing import Any

from csi.cluster.api import Api, ApiError
from tests.cluster.kube import Object

_LONG_S = 3600
_PATIENCE_S = 120.0


class Clock:
    """Follows a collection; `reached` tells of an object whether it is where it shall come."""

    def __init__(self, api: Api, path: str, reached: Callable[[Object], bool]) -> None:
        self._api, self._path, self._reached = api, path, reached
        self._at: dict[str, float] = {}
        self._changed = threading.Condition()
        version = json.loads(api.get(path))["metadata"]["resourceVersion"]
        threading.Thread(target=self._follow, args=[version], name="clock", daemon=True).start()

    def create(self, manifest: Object) -> float:
        """Make an object; gives the time at which it was asked for."""
        began = perf_counter()
        self._api.create(self._path, manifest)
        return began

    def wait(self, name: str) -> float:
        """Give the time at which an object came there."""
        with self._changed:
            assert self._changed.wait_for(lambda: name in self._at, _PATIENCE_S), f"{self._path}/{name}: not in time"
            return self._at[name]

    def took_s(self, manifest: Object) -> float:
        """Make an object and give the seconds until it was there."""
        began = self.create(manifest)
        return self.wait(manifest["metadata"]["name"]) - began

    def _follow(self, version: str) -> None:
        query: Any = {"resourceVersion": version, "timeoutSeconds": _LONG_S}
        try:
            for line in self._api.watch(self._path, query):
                self._take(json.loads(line))
        except ApiError as error:  # the cluster has ended, or whoever waits finds out
            print(f"{self._path}: {error}", flush=True)

    def _take(self, event: Object) -> None:
        found = event["object"]
        if event["type"] in {"ADDED", "MODIFIED"} and self._reached(found):
            with self._changed:
                self._at.setdefault(found["metadata"]["name"], perf_counter())
                self._changed.notify_all()
