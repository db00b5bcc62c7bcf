"""A real kube-apiserver keeps the contract that the one in memory keeps in tests/contract."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from csi.cluster.api import KubernetesApi
from csi.cluster.connection import connect
from tests.support.apiserver import apiserver
from tests.support.kube_contract import KubeApiContract


@pytest.fixture(scope="module")
def server() -> Iterator[Path]:
    """Run a real kube-apiserver; gives a kubeconfig."""
    with apiserver() as config:
        yield config


@pytest.fixture(scope="module", params=["kubeconfig", "pod"])
def api(request: pytest.FixtureRequest, server: Path, tmp_path_factory: pytest.TempPathFactory) -> KubernetesApi:
    """Give it as it is found by a kubeconfig, and as a pod finds it."""
    if request.param == "kubeconfig":
        return KubernetesApi(lambda: connect({"KUBECONFIG": str(server)}))
    account = tmp_path_factory.mktemp("account")
    environ = _as_pod(json.loads(server.read_text()), account)
    return KubernetesApi(lambda: connect(environ, account))


def _as_pod(config: dict[str, Any], account: Path) -> dict[str, str]:
    """Write what a pod has in its folder; gives what it has in its environment."""
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    (account / "ca.crt").write_bytes(Path(cluster["certificate-authority"]).read_bytes())
    (account / "token").write_text(user["token"])
    url = urlsplit(cluster["server"])
    return {"KUBERNETES_SERVICE_HOST": str(url.hostname), "KUBERNETES_SERVICE_PORT": str(url.port)}


class TestKubernetesApi(KubeApiContract):
    """The real thing, as the driver asks it."""
