"""A real kube-apiserver with its etcd on loopback: no kubelet, no scheduler, half a dozen seconds to start.

Enough to judge what only the API server can: admission policies, RBAC, and whether manifests are valid.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / ".cache/cluster-programs"  # by `.ci/setup cluster`
ADMIN = "admin-of-a-test"  # a token that lives as long as the server
START_S = 90.0

Object = dict[str, Any]

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


@dataclass(frozen=True)
class Answer:
    """What the API server said."""

    code: int
    body: Object

    @property
    def message(self) -> str:
        """Give the sentence of a refusal."""
        return str(self.body.get("message", ""))


@dataclass
class ApiServer:
    """A running API server and how to ask it."""

    port: int
    trust: ssl.SSLContext
    resources: dict[tuple[str, str], tuple[str, bool]] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: object = None, token: str = ADMIN, kind: str = "") -> Answer:
        """Send one request; `kind` is its content type, JSON if left out."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=self.trust, timeout=30)
        try:
            headers = {"Authorization": f"Bearer {token}", "Content-Type": kind or "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            text = response.read()
            plain = response.headers.get_content_type() != "application/json"
            return Answer(response.status, {"message": text.decode()} if plain else json.loads(text))
        finally:
            connection.close()

    def done(self, method: str, path: str, body: object = None, token: str = ADMIN, kind: str = "") -> Object:
        """Ask for what must not be refused, and give the object."""
        answer = self.ask(method, path, body, token, kind)
        assert answer.code < 300, f"{method} {path}: {answer.code} {answer.message}"
        return answer.body

    def apply(self, thing: Object) -> Object:
        """Apply one object of whatever kind, strictly: an unknown field is an error."""
        path = f"{self.path_of(thing)}?fieldManager=test&force=true&fieldValidation=Strict"
        return self.done("PATCH", path, thing, kind=APPLY)

    def path_of(self, thing: Object) -> str:
        """Give the object's path, which discovery knows by its version and kind."""
        version, kind, meta = thing["apiVersion"], thing["kind"], thing["metadata"]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if (version, kind) not in self.resources:
            for found in self.done("GET", root)["resources"]:
                self.resources.setdefault((version, found["kind"]), (found["name"], found["namespaced"]))
        plural, namespaced = self.resources[version, kind]
        return f"{root}{'/namespaces/' + meta['namespace'] if namespaced else ''}/{plural}/{meta['name']}"

    def token(self, namespace: str, account: str, bound_to: Object | None = None) -> str:
        """Have a token made for a service account, bound to a pod or another object if one is given."""
        reference = bound_to and {
            "kind": bound_to["kind"],
            "apiVersion": bound_to["apiVersion"],
            "name": bound_to["metadata"]["name"],
            "uid": bound_to["metadata"]["uid"],
        }
        wanted = {"spec": {"audiences": [], "expirationSeconds": 3600, "boundObjectRef": reference}}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        return str(self.done("POST", path, wanted)["status"]["token"])


@contextmanager
def running(folder: Path) -> Iterator[ApiServer]:
    """Start both programs with all they write in `folder`; they are gone at the end."""
    with ExitStack() as stack:
        etcd = _start_etcd(stack, folder)
        port = _free_port()
        process = _start(stack, folder / "kube-apiserver.log", "kube-apiserver", *_flags(folder, etcd, port))
        _wait((folder / "pki/apiserver.crt").exists, process, folder / "kube-apiserver.log")
        trust = ssl.create_default_context(cafile=str(folder / "pki/apiserver.crt"))
        trust.check_hostname = False  # it signed itself, for this address
        server = ApiServer(port, trust)
        _wait(lambda: _is_ready(server), process, folder / "kube-apiserver.log")
        yield server


def _start_etcd(stack: ExitStack, folder: Path) -> str:
    client, peer = (f"http://127.0.0.1:{_free_port()}" for _ in range(2))
    _start(
        stack, folder / "etcd.log", "etcd", f"--data-dir={folder / 'etcd'}", "--unsafe-no-fsync",
        f"--listen-client-urls={client}", f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}", "--log-level=warn",
    )  # fmt: skip
    return client


def _flags(folder: Path, etcd: str, port: int) -> list[str]:
    key = ec.generate_private_key(ec.SECP256R1())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "sa.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    (folder / "sa.pub").write_bytes(public)
    (folder / "tokens.csv").write_text(f'{ADMIN},admin,admin,"system:masters"\n')
    return [
        f"--etcd-servers={etcd}", f"--secure-port={port}", "--bind-address=127.0.0.1",
        f"--cert-dir={folder / 'pki'}", f"--token-auth-file={folder / 'tokens.csv'}",
        f"--service-account-signing-key-file={folder / 'sa.key'}",
        f"--service-account-key-file={folder / 'sa.pub'}", "--service-account-issuer=https://kubernetes.default.svc",
        "--service-cluster-ip-range=10.96.0.0/24", "--authorization-mode=RBAC", "--allow-privileged=true",
    ]  # fmt: skip


def _start(stack: ExitStack, log: Path, program: str, *flags: str) -> subprocess.Popen[bytes]:
    """Start a program that ends with the stack."""
    output = stack.enter_context(log.open("wb"))
    process = subprocess.Popen([PROGRAMS / program, *flags], stdout=output, stderr=output)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


def _is_ready(server: ApiServer) -> bool:
    try:
        return server.ask("GET", "/readyz").code == 200
    except OSError:
        return False


def _wait(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_S
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"the API server did not start: {log.read_text()[-2000:]}")
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
