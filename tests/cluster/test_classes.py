"""Classes that are wrong: refused when they are applied, or else told to whoever waits for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from kubernetes.dynamic.exceptions import DynamicApiError

from tests.cluster.kube import Kube, Object
from tests.cluster.scene import Scene


def storage_class(name: str, **parameters: str) -> Object:
    """Give a class of this driver."""
    head = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name}}
    how = {"volumeBindingMode": "WaitForFirstConsumer", "provisioner": "local-path.csi.dev"}
    return {**head, **how, "parameters": parameters}


@contextmanager
def made(kube: Kube, wanted: Object) -> Iterator[str]:
    """Have a class for a while."""
    kube.create(wanted)
    try:
        yield wanted["metadata"]["name"]
    finally:
        kube.delete("StorageClass", wanted["metadata"]["name"])


def test_claim_of_a_class_that_no_node_can_serve_is_told_why(scene: Scene, kube: Kube) -> None:
    with made(kube, storage_class(f"{scene.namespace}-nowhere", pool="nowhere")) as name:
        scene.claim("data", storage_class=name)
        scene.start("waiting", "data")
        scene.wait_event("data", "ClassCannotBeServed", "no node has a pool 'nowhere'")


@pytest.mark.parametrize(
    ("parameters", "said"),
    [({"moode": "0770"}, "unknown parameter moode"), ({"mode": "rwx"}, "parameter mode: wanted three or four octal")],
)
def test_class_with_parameters_that_are_wrong_is_refused(kube: Kube, parameters: dict[str, str], said: str) -> None:
    with pytest.raises(DynamicApiError) as caught:
        kube.create(storage_class("wrong", **parameters))
    assert said in str(caught.value)
    assert kube.get("StorageClass", "wrong") is None
