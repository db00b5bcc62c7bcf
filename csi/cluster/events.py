"""Events, which people see with `kubectl describe`: few, in the background, and never the same twice soon."""

from __future__ import annotations

import datetime as dt
import os
import secrets
import threading
from queue import Full, Queue
from time import monotonic
from typing import TYPE_CHECKING, Any

import structlog

from csi.cluster.api import ApiError
from csi.services.identity import NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi.cluster.api import Api
    from csi.cluster.objects import Claim, PersistentVolume

log = structlog.get_logger()

_AGAIN_S = 900.0  # the same words about the same object
_MOST_ALIKE = 20  # of one reason about one object in that time: a node may cause as many as it likes
_PAUSE_S = 0.2
_MOST_WAITING = 100
_MOST_KNOWN = 10_000
_LONGEST_MESSAGE = 1024
_CLUSTER_NAMESPACE = "default"  # where events of objects without a namespace stand


class Events:
    """Writes events. Of what all controllers see, only the leading one should tell: its callers look to that."""

    def __init__(self, api: Callable[[], Api]) -> None:
        self._api = api
        self._waiting: Queue[dict[str, Any] | None] = Queue(_MOST_WAITING)
        self._guard = threading.Lock()
        self._told: dict[tuple[str, str], dict[str, float]] = {}
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write no more; what still waits is dropped."""
        try:
            self._waiting.put_nowait(None)
        except Full:
            return

    def warn_claim(self, claim: Claim, reason: str, message: str) -> bool:
        """Tell of a PersistentVolumeClaim; False where that was told of late, or too much else waits to be told."""
        return self._warn(
            "PersistentVolumeClaim", claim.metadata.namespace, claim.metadata.name, claim.metadata.uid, reason, message
        )

    def warn_volume(self, volume: PersistentVolume, reason: str, message: str) -> None:
        """Tell of a PersistentVolume."""
        self._warn("PersistentVolume", "", volume.metadata.name, volume.metadata.uid, reason, message)

    def warn_node(self, name: str, reason: str, message: str) -> None:
        """Tell of a Node; its name serves as its uid, as in the kubelet's own events."""
        self._warn("Node", "", name, name, reason, message)

    def _warn(self, kind: str, namespace: str, name: str, uid: str, reason: str, message: str) -> bool:
        if not self._is_news(uid, reason, message):
            return False
        try:
            self._waiting.put_nowait(_event(kind, namespace, name, uid, reason, message))
        except Full:
            log.warning("event dropped, for too many wait", object=f"{kind} {namespace}/{name}", reason=reason)
            return False
        return True

    def _is_news(self, uid: str, reason: str, message: str) -> bool:
        now = monotonic()
        with self._guard:
            if len(self._told) > _MOST_KNOWN:
                self._told.clear()
            recent = {words: at for words, at in self._told.get((uid, reason), {}).items() if now - at < _AGAIN_S}
            is_news = message not in recent and len(recent) < _MOST_ALIKE
            self._told[uid, reason] = recent | ({message: now} if is_news else {})
        return is_news

    def _run(self) -> None:
        pause = threading.Event()
        while (event := self._waiting.get()) is not None:
            path = f"/api/v1/namespaces/{event['metadata']['namespace']}/events"
            try:
                self._api().create(path, event)
            except ApiError as error:
                log.warning("event not written", reason=event["reason"], error=str(error))
            pause.wait(_PAUSE_S)


def _event(kind: str, namespace: str, name: str, uid: str, reason: str, message: str) -> dict[str, Any]:
    now = dt.datetime.now(dt.UTC)
    stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    where = namespace or _CLUSTER_NAMESPACE
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{name[:200]}.{secrets.token_hex(8)}", "namespace": where},
        "involvedObject": {"apiVersion": "v1", "kind": kind, "namespace": namespace, "name": name, "uid": uid},
        "reason": reason,
        "message": message[:_LONGEST_MESSAGE],
        "type": "Warning",
        "source": {"component": NAME},
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
        "reportingComponent": NAME,
        "reportingInstance": os.environ.get("POD_NAME", NAME),
        "action": "",
    }
