"""How the API server of a test is asked, as whoever has a token, in each of the ways that HTTP has."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.support.apiserver import apiserver

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

    address: str
    trust: ssl.SSLContext
    admin: str
    kubeconfig: Path
    resources: dict[tuple[str, str], tuple[str, bool]] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: object = None, token: str = "", kind: str = "") -> Answer:
        """Send one request, as the administrator if no token is given; `kind` is its content type, else JSON."""
        connection = http.client.HTTPSConnection(self.address, context=self.trust, timeout=30)
        try:
            headers = {"Authorization": f"Bearer {token or self.admin}", "Content-Type": kind or "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            text = response.read()
            plain = response.headers.get_content_type() != "application/json"
            return Answer(response.status, {"message": text.decode()} if plain else json.loads(text))
        finally:
            connection.close()

    def done(self, method: str, path: str, body: object = None, token: str = "", kind: str = "") -> Object:
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
def running(*flags: str) -> Iterator[ApiServer]:
    """Start an API server; it is gone at the end."""
    with apiserver(*flags) as kubeconfig:
        said = json.loads(kubeconfig.read_text())
        cluster, user = said["clusters"][0]["cluster"], said["users"][0]["user"]
        trust = ssl.create_default_context(cafile=cluster["certificate-authority"])
        yield ApiServer(urlsplit(cluster["server"]).netloc, trust, user["token"], kubeconfig)
