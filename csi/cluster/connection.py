"""How to reach the API server: in a pod by its service account, elsewhere by KUBECONFIG.

What a pod has is an address and two files, and is read here. A kubeconfig, with its many ways to log in, is read by
package `kubernetes`: it is imported for one alone, since with all that it imports it takes 19 MB.
"""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

import urllib3

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

_TOKEN_S = 60.0  # the kubelet replaces the file when a fifth of the token's life is left
_MOST_CONNECTIONS = 16  # kept open; more are made where they are needed


class NoConnectionError(Exception):
    """Nothing says how to reach the API server."""


class Connection(NamedTuple):
    """authorization: gives the header's value, '' where a certificate says who we are; not to be called at once."""

    host: str
    pool: urllib3.PoolManager
    authorization: Callable[[], str]


def connect(environ: Mapping[str, str] = os.environ, account: Path = SERVICE_ACCOUNT) -> Connection:
    """Find the way; NoConnectionError where there is none, OSError where a file of it cannot be read."""
    if "KUBERNETES_SERVICE_HOST" in environ:
        return _as_pod(environ["KUBERNETES_SERVICE_HOST"], environ.get("KUBERNETES_SERVICE_PORT", "443"), account)
    return _by_kubeconfig(environ.get("KUBECONFIG") or None)


def _as_pod(address: str, port: str, account: Path) -> Connection:
    authority = account / "ca.crt"
    if not authority.is_file():
        raise NoConnectionError(f"{authority}: wanted the certificate of the API server's authority, found no file")
    host = f"https://[{address}]:{port}" if ":" in address else f"https://{address}:{port}"
    pool = urllib3.PoolManager(maxsize=_MOST_CONNECTIONS, cert_reqs="CERT_REQUIRED", ca_certs=str(authority))
    token = Token(account / "token")
    token()
    return Connection(host, pool, token)


class Token:
    """The token of a service account, read again each minute."""

    def __init__(self, path: Path, clock: Callable[[], float] = monotonic) -> None:
        self._path, self._clock = path, clock
        self._value, self._due = "", clock()

    def __call__(self) -> str:
        """Give the header's value."""
        if self._clock() >= self._due:
            self._value = self._path.read_text(encoding="ascii").strip()
            if not self._value:
                raise NoConnectionError(f"{self._path}: wanted a token, found an empty file")
            self._due = self._clock() + _TOKEN_S
        return f"Bearer {self._value}"


def _by_kubeconfig(path: str | None) -> Connection:
    from kubernetes.client import Configuration  # noqa: PLC0415 - memory
    from kubernetes.client.rest import RESTClientObject  # noqa: PLC0415 - likewise
    from kubernetes.config import ConfigException, load_kube_config  # noqa: PLC0415 - likewise

    found = Configuration()
    try:
        load_kube_config(path, client_configuration=found)  # type: ignore[no-untyped-call] # of theirs
    except ConfigException as error:
        raise NoConnectionError(str(error)) from error
    pool = RESTClientObject(found).pool_manager
    return Connection(found.host, pool, lambda: found.get_api_key_with_prefix("BearerToken") or "")
