"""The Kubernetes API as paths and JSON.

The models of package `kubernetes` are left aside: a Lease as an object of theirs costs a hundred times what we keep
of it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlencode

import msgspec
import urllib3

from csi.cluster.connection import NoConnectionError, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from csi.cluster.connection import Connection

# A half-open connection would else hang for ever. On a watch something comes about every minute: a bookmark.
_CONNECT_S = 5.0
_READ_S = 15.0
_WATCH_READ_S = 75.0
_CHUNK_BYTES = 65536
_APPLY = "application/apply-patch+yaml"
_AGENT = "csi-local-path"

_GONE, _CONFLICT, _NOT_FOUND = 410, 409, 404

Query = dict[str, str | int]


class ApiError(Exception):
    """The API server refused, or could not be reached (status 0)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    @property
    def is_not_found(self) -> bool:
        """Tell whether the object is not there."""
        return self.status == _NOT_FOUND

    @property
    def is_conflict(self) -> bool:
        """Tell whether somebody else was faster."""
        return self.status == _CONFLICT

    @property
    def is_expired(self) -> bool:
        """Tell whether the resourceVersion is too old to go on from."""
        return self.status == _GONE


class Api(Protocol):
    """What we do with the API server. Paths begin with /api; answers are JSON as it came."""

    def get(self, path: str, query: Query | None = None, /) -> bytes:
        """Read an object or a list."""

    def create(self, path: str, body: Mapping[str, Any], /) -> bytes:
        """Add an object to a collection."""

    def replace(self, path: str, body: Mapping[str, Any], /) -> bytes:
        """Replace an object, if nobody changed it since (resourceVersion)."""

    def apply(self, path: str, body: Mapping[str, Any], manager: str, /) -> bytes:
        """Make an object so, whether it is there or not (server-side apply, by force): needs no reading."""

    def watch(self, path: str, query: Query, /) -> Iterator[bytes]:
        """Give events, one JSON object each, until the server ends it."""


class _Status(msgspec.Struct):
    message: str = ""
    reason: str = ""


_STATUS = msgspec.json.Decoder(_Status)


class KubernetesApi:
    """The API server of the cluster that we run in, or of KUBECONFIG."""

    def __init__(self, find: Callable[[], Connection] = connect) -> None:
        """Find out how to connect; ApiError where nothing says."""
        try:
            self._connection = find()
        except (NoConnectionError, OSError) as error:
            raise ApiError(
                0, f"no way to the Kubernetes API is known: {error}; wanted a service account or KUBECONFIG"
            ) from error
        self._authorizing = threading.Lock()

    def get(self, path: str, query: Query | None = None, /) -> bytes:
        """Read an object or a list."""
        return self._whole("GET", path, query)

    def create(self, path: str, body: Mapping[str, Any], /) -> bytes:
        """Add an object to a collection."""
        return self._whole("POST", path, body=body)

    def replace(self, path: str, body: Mapping[str, Any], /) -> bytes:
        """Replace an object."""
        return self._whole("PUT", path, body=body)

    def apply(self, path: str, body: Mapping[str, Any], manager: str, /) -> bytes:
        """Make an object so."""
        return self._whole("PATCH", path, {"fieldManager": manager, "force": "true"}, body, _APPLY)

    def watch(self, path: str, query: Query, /) -> Iterator[bytes]:
        """Give events as they come."""
        found = self._open("GET", path, {**query, "watch": "1", "allowWatchBookmarks": "true"}, read_s=_WATCH_READ_S)
        try:
            rest = b""
            for chunk in found.stream(_CHUNK_BYTES, decode_content=True):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from filter(None, lines)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ApiError(0, f"watch {path}: {error}") from error
        finally:
            found.close()

    def _whole(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> bytes:
        found = self._open(method, path, query or {}, body, content_type)
        try:
            data: bytes = found.data
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ApiError(0, f"{method} {path}: {error}") from error
        finally:
            found.release_conn()
        return data

    def _open(
        self,
        method: str,
        path: str,
        query: Query,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        read_s: float = _READ_S,
    ) -> urllib3.BaseHTTPResponse:
        url = f"{self._connection.host}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": "application/json", "User-Agent": _AGENT}
        if body is not None:
            headers["Content-Type"] = content_type
        try:
            with self._authorizing:  # reads the token's file again from time to time
                headers |= _authorization(self._connection.authorization())
            found = self._connection.pool.request(
                method,
                url,
                body=None if body is None else msgspec.json.encode(body),
                headers=headers,
                timeout=urllib3.Timeout(connect=_CONNECT_S, read=read_s),
                preload_content=False,
                retries=False,  # we try again ourselves, in our own time
            )
        except Exception as error:  # of urllib3, ssl, or about the token: the API is not to be had
            raise ApiError(0, f"{method} {path}: {error}") from error
        if not 200 <= found.status < 300:  # noqa: PLR2004 - success in HTTP
            raise ApiError(found.status, f"{method} {path}: {_reason(found)}")
        return found


def _authorization(value: str) -> dict[str, str]:
    return {"Authorization": value} if value else {}


def _reason(found: urllib3.BaseHTTPResponse) -> str:
    try:
        status = _STATUS.decode(found.data)
    except (msgspec.MsgspecError, urllib3.exceptions.HTTPError, OSError):
        return f"HTTP {found.status}"
    return f"{status.reason}: {status.message}"
