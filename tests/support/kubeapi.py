"""A Kubernetes API in memory: objects by path, optimistic concurrency, lists in pages, watches. A hand-written fake.

It keeps the rules that csi.cluster counts on, and tests/contract holds it to a real kube-apiserver.
"""

from __future__ import annotations

import copy
import json
import threading
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from csi.cluster.api import ApiError, Query

Object = dict[str, Any]

_CONFLICT, _NOT_FOUND, _GONE = 409, 404, 410


class MemoryApi:
    """`csi.cluster.api.Api`. `failure` is raised by every call while it is set, and ends the watches."""

    def __init__(self) -> None:
        self.failure: ApiError | None = None
        self.calls: list[tuple[str, str]] = []
        self._objects: dict[str, Object] = {}
        self._history: list[tuple[int, str, str, Object]] = []
        self._version = 0
        self._changed = threading.Condition()
        self._closed = False

    # What a test does behind everybody's back.

    def put(self, path: str, body: Mapping[str, Any]) -> Object:
        """Make an object so, whatever was there."""
        with self._changed:
            return self._store(path, copy.deepcopy(dict(body)))

    def delete(self, path: str) -> None:
        """Remove an object."""
        with self._changed:
            self._version += 1
            gone = self._objects.pop(path)
            gone["metadata"]["resourceVersion"] = str(self._version)
            self._note("DELETED", path, gone)

    def object(self, path: str) -> Object:
        """Give an object."""
        return copy.deepcopy(self._objects[path])

    def objects(self, collection: str) -> list[Object]:
        """Give the objects of a collection, in the order of their paths."""
        with self._changed:
            return [copy.deepcopy(self._objects[path]) for path in self._within(collection)]

    def forget_history(self) -> None:
        """Let every version before now be too old to watch from, and end the watches."""
        with self._changed:
            self._version += 1
            self._history = [(self._version, "EXPIRED", "", {})]
            self._changed.notify_all()

    def fail(self, failure: ApiError | None) -> None:
        """Let every call fail from now on, or work again."""
        with self._changed:
            self.failure = failure
            self._changed.notify_all()

    def close(self) -> None:
        """End all watches for good."""
        self._closed = True
        self.fail(ApiError(0, "closed"))

    # As an Api.

    def get(self, path: str, query: Query | None = None, /) -> bytes:
        """Read an object, or a page of a collection."""
        with self._changed:
            self._begin("GET", path)
            if path in self._objects:
                return _encode(self._objects[path])
            if _is_object(path):
                raise ApiError(_NOT_FOUND, f"NotFound: {path}")
            return self._page(path, query or {})

    def create(self, path: str, body: Mapping[str, Any], /) -> bytes:
        """Add an object."""
        with self._changed:
            self._begin("POST", path)
            where = f"{path}/{body['metadata']['name']}"
            if where in self._objects:
                raise ApiError(_CONFLICT, f"AlreadyExists: {where}")
            return _encode(self._store(where, copy.deepcopy(dict(body))))

    def replace(self, path: str, body: Mapping[str, Any], /) -> bytes:
        """Replace an object of the version that the body names."""
        with self._changed:
            self._begin("PUT", path)
            known = self._known(path)
            if known["metadata"]["resourceVersion"] != body["metadata"].get("resourceVersion"):
                raise ApiError(_CONFLICT, f"Conflict: {path}")
            return _encode(self._store(path, copy.deepcopy(dict(body))))

    def apply(self, path: str, body: Mapping[str, Any], manager: str, /) -> bytes:
        """Make an object so."""
        assert manager
        with self._changed:
            self._begin("PATCH", path)
            return _encode(self._store(path, copy.deepcopy(dict(body))))

    def watch(self, path: str, query: Query, /) -> Iterator[bytes]:
        """Give what happens to a collection after a version."""
        with self._changed:
            self._begin("WATCH", path)
        seen, only = int(query["resourceVersion"]), _only(query)
        while True:
            with self._changed:
                while not self.failure and self._version <= seen:
                    self._changed.wait()
                if self.failure:
                    raise ApiError(0, "the watch was cut")
                if self._history[0][1] == "EXPIRED" and seen < self._history[0][0]:
                    yield _encode({"type": "ERROR", "object": {"code": _GONE, "message": "too old"}})
                    return
                news = [item for item in self._history if item[0] > seen]
                seen = self._version
            for _, kind, where, found in news:
                if where.startswith(f"{path}/") and only in ("", found["metadata"]["name"]):
                    yield _encode({"type": kind, "object": found})

    def _begin(self, method: str, path: str) -> None:
        self.calls.append((method, path))
        if self.failure:
            raise self.failure

    def _known(self, path: str) -> Object:
        if path not in self._objects:
            raise ApiError(_NOT_FOUND, f"NotFound: {path}")
        return self._objects[path]

    def _store(self, path: str, body: Object) -> Object:
        self._version += 1
        known = self._objects.get(path)
        metadata = body.setdefault("metadata", {})
        metadata["uid"] = known["metadata"]["uid"] if known else metadata.get("uid") or str(uuid.uuid4())
        metadata["resourceVersion"] = str(self._version)
        metadata.setdefault("name", path.rpartition("/")[2])
        self._objects[path] = body
        self._note("MODIFIED" if known else "ADDED", path, body)
        return body

    def _note(self, kind: str, path: str, body: Object) -> None:
        self._history.append((self._version, kind, path, copy.deepcopy(body)))
        self._changed.notify_all()

    def _within(self, collection: str) -> list[str]:
        """Give the paths of a collection; one without a namespace in it is of all namespaces."""
        prefix, _, kind = collection.rpartition("/")
        everywhere = [
            path for path in self._objects if path.startswith(f"{prefix}/namespaces/") and f"/{kind}/" in path
        ]
        return sorted(everywhere + [path for path in self._objects if path.startswith(f"{collection}/")])

    def _page(self, path: str, query: Query) -> bytes:
        only, start = _only(query), int(query.get("continue", 0))
        found = [self._objects[where] for where in self._within(path)]
        found = [each for each in found if only in ("", each["metadata"]["name"])]
        end = start + int(query.get("limit", 500))
        metadata = {"resourceVersion": str(self._version), "continue": str(end) if end < len(found) else ""}
        return _encode({"metadata": metadata, "items": found[start:end]})


def _is_object(path: str) -> bool:
    """Tell whether a path names one object: /api/v1/KIND/NAME, or with a group or a namespace before it."""
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    if parts[0] == "namespaces":
        parts = parts[2:]
    return len(parts) == 2


def _only(query: Query) -> str:
    return str(query.get("fieldSelector", "")).removeprefix("metadata.name=")


def _encode(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body).encode()
