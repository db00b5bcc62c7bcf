"""The way to the API server, made when it is first needed: a node serves its pods whether there is one or not."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from csi.cluster.api import KubernetesApi

if TYPE_CHECKING:
    from csi.cluster.api import Api


class Connecting:
    """Gives the one client of this process; ApiError while nothing says how to connect."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._api: Api | None = None

    def __call__(self) -> Api:
        """Give the client."""
        with self._guard:
            if self._api is None:
                self._api = KubernetesApi()
            return self._api
