"""A real kube-apiserver with etcd, in two processes of our own on loopback; nothing else of Kubernetes."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / ".cache/cluster-programs"
_TOKEN = "administrator-of-a-test"  # noqa: S105  known to nobody else, and gone with the test
_PATIENCE_S = 120.0


@contextmanager
def apiserver(*more: str) -> Iterator[Path]:
    """Run both, and give a kubeconfig of an administrator. more: flags of kube-apiserver."""
    folder = Path(tempfile.mkdtemp(prefix="csi-api-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        clients, peers, port = _free_ports(3)
        key = ec.generate_private_key(ec.SECP256R1())
        (folder / "sa.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (folder / "sa.pub").write_bytes(public)
        (folder / "tokens.csv").write_text(f"{_TOKEN},admin,admin,system:masters\n")
        _start(stack, folder, "etcd", *_etcd(folder, clients, peers))
        server = _start(stack, folder, "kube-apiserver", *_apiserver(folder, clients, port), *more)
        config = folder / "kubeconfig"
        config.write_text(json.dumps(_kubeconfig(folder, port)))
        _wait(server, folder, port)
        yield config


def _etcd(folder: Path, clients: int, peers: int) -> list[str]:
    return [
        f"--data-dir={folder}/etcd",
        "--unsafe-no-fsync",
        "--log-level=error",
        f"--listen-client-urls=http://127.0.0.1:{clients}",
        f"--advertise-client-urls=http://127.0.0.1:{clients}",
        f"--listen-peer-urls=http://127.0.0.1:{peers}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peers}",
        f"--initial-cluster=default=http://127.0.0.1:{peers}",
    ]


def _apiserver(folder: Path, clients: int, port: int) -> list[str]:
    return [
        f"--etcd-servers=http://127.0.0.1:{clients}",
        "--bind-address=127.0.0.1",
        "--advertise-address=192.0.2.1",  # nobody is told; without it a default route is wanted
        "--endpoint-reconciler-type=none",  # loopback is no endpoint for a Service
        "--external-hostname=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={folder}/tls",
        f"--token-auth-file={folder}/tokens.csv",
        "--service-cluster-ip-range=10.96.0.0/24",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-signing-key-file={folder}/sa.key",
        f"--service-account-key-file={folder}/sa.pub",
        "--authorization-mode=RBAC",
        "--allow-privileged=true",
        "--disable-admission-plugins=ServiceAccount",
        "--watch-cache-sizes=leases.coordination.k8s.io#100",
    ]


def _kubeconfig(folder: Path, port: int) -> dict[str, object]:
    cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority": f"{folder}/tls/apiserver.crt"}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": _TOKEN}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        "current-context": "test",
    }


def _start(stack: ExitStack, folder: Path, name: str, *options: str) -> subprocess.Popen[bytes]:
    log = stack.enter_context((folder / f"{name}.log").open("wb"))
    process = subprocess.Popen([PROGRAMS / name, *options], cwd=folder, stdout=log, stderr=log)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _wait(server: subprocess.Popen[bytes], folder: Path, port: int) -> None:
    end = time.monotonic() + _PATIENCE_S
    while not _is_ready(folder, port):
        log = (folder / "kube-apiserver.log").read_text(errors="replace")[-2000:]
        assert server.poll() is None, f"kube-apiserver ended:\n{log}"
        assert time.monotonic() < end, f"kube-apiserver is not ready:\n{log}"
        time.sleep(0.1)


def _is_ready(folder: Path, port: int) -> bool:
    try:
        context = ssl.create_default_context(cafile=f"{folder}/tls/apiserver.crt")
        with urllib.request.urlopen(f"https://127.0.0.1:{port}/readyz", context=context, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
