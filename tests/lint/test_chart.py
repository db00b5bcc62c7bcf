"""What the Helm chart promises: what it renders, as it is shipped and with other values, and what it refuses."""

import json
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from csi.config import parse, to_settings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/chart/csi-local-path"
POOL = {"name": "default", "path": "/mnt/disk"}
ROLLING = {"maxSurge": 0}

Object = dict[str, Any]


@pytest.fixture(scope="session", autouse=True)
def helm() -> str:
    """Have helm there, in whatever order tests come."""
    subprocess.run([ROOT / ".ci/setup", "helm"], check=True)
    return str(ROOT / ".cache/helm/helm")


def rendered(helm: str, **values: object) -> list[Object]:
    """Render the chart with values that differ; what helm refuses is a ValueError."""
    command = [helm, "template", "csi-local-path", str(CHART), "--namespace", "storage"]
    for name, value in values.items():
        command += ["--set-json", f"{name}={json.dumps(value)}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(done.stderr)
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def of_kind(objects: list[Object], kind: str) -> dict[str, Object]:
    return {found["metadata"]["name"]: found for found in objects if found["kind"] == kind}


def containers(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Give each container with the name of its workload and its own."""
    for found in objects:
        if found["kind"] in ("DaemonSet", "Deployment"):
            for container in found["spec"]["template"]["spec"]["containers"]:
                yield f"{found['metadata']['name']}/{container['name']}", container


EVERYTHING = {
    "nodeGroups": {"nvme": {"pools": [{"name": "fast", "path": "/nvme"}]}},
    "nodes": [{"match": "big-*", "pools": [POOL]}, {"match": "small", "pools": []}],
    "hostPaths": ["/mnt"],
    "snapshotter": {"enabled": True},
    "networkPolicy": {"metricsFrom": [{"podSelector": {}}]},
    "imagePullSecrets": [{"name": "secret"}],
}
VARIANTS: dict[str, dict[str, Any]] = {"shipped": {}, "everything": EVERYTHING}


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_the_driver_of_a_node_is_privileged(helm: str, variant: str) -> None:
    for name, container in containers(rendered(helm, **VARIANTS[variant])):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"], name
        if name.startswith("csi-local-path-node") and name.endswith("/driver"):
            assert context["privileged"]
            continue
        assert "privileged" not in context, name
        assert context["capabilities"] == {"drop": ["ALL"]}, name
        assert context["allowPrivilegeEscalation"] is False, name


def test_controllers_are_no_root_and_only_drivers_of_nodes_have_a_token(helm: str) -> None:
    objects = rendered(helm)
    controller = of_kind(objects, "Deployment")["csi-local-path-controller"]["spec"]["template"]["spec"]
    assert controller["securityContext"]["runAsNonRoot"]
    assert all("runAsUser" not in c["securityContext"] for c in controller["containers"])
    node = of_kind(objects, "DaemonSet")["csi-local-path-node"]["spec"]["template"]["spec"]
    assert node["automountServiceAccountToken"] is False
    assert [c["name"] for c in node["containers"] if any(m["name"] == "token" for m in c["volumeMounts"])] == ["driver"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_pool_is_never_made_and_agents_never_overlap(helm: str, variant: str) -> None:
    for agents in of_kind(rendered(helm, **VARIANTS[variant]), "DaemonSet").values():
        assert agents["spec"]["updateStrategy"]["rollingUpdate"].items() >= ROLLING.items()
        volumes = agents["spec"]["template"]["spec"]["volumes"]
        made = [v["name"] for v in volumes if v.get("hostPath", {}).get("type") != "Directory" and "hostPath" in v]
        assert made == ["plugin"]


def test_groups_share_no_node(helm: str) -> None:
    agents = of_kind(rendered(helm, **EVERYTHING), "DaemonSet")
    conditions = {
        name: found["spec"]["template"]["spec"]["affinity"]["nodeAffinity"][
            "requiredDuringSchedulingIgnoredDuringExecution"
        ]["nodeSelectorTerms"][0]["matchExpressions"][1]
        for name, found in agents.items()
    }
    assert conditions == {
        "csi-local-path-node": {"key": "local-path.csi.dev/pools", "operator": "NotIn", "values": ["nvme"]},
        "csi-local-path-node-nvme": {"key": "local-path.csi.dev/pools", "operator": "In", "values": ["nvme"]},
    }
    selectors = [json.dumps(found["spec"]["selector"]) for found in agents.values()]
    assert len(set(selectors)) == len(selectors)


def test_the_driver_accepts_the_configuration_of_a_node(helm: str) -> None:
    config = of_kind(rendered(helm, kubeletDir="/var/lib/k0s/kubelet"), "ConfigMap")["csi-local-path-node"]
    settings = to_settings(parse(config["data"]["config.yaml"]))
    assert settings.target_roots == ["/var/lib/k0s/kubelet"]
    assert [(pool.name, pool.path, pool.init) for pool in settings.pools] == [
        ("default", "/var/lib/csi-local-path", "if-empty")
    ]


def host_paths(helm: str, **values: object) -> list[str]:
    """Give the host's directories in which an agent sees pools."""
    agent = of_kind(rendered(helm, **values), "DaemonSet")["csi-local-path-node"]["spec"]["template"]["spec"]
    return [v["hostPath"]["path"] for v in agent["volumes"] if v["name"].startswith("pools-")]


def test_a_pool_that_must_be_a_mount_is_seen_from_above(helm: str) -> None:
    pools = [POOL, {"name": "b", "path": "/srv/b", "requireMount": True}, {"name": "c", "path": "/srv/c/"}]
    assert host_paths(helm, pools=pools) == ["/mnt/disk", "/srv", "/srv/c"]
    assert host_paths(helm, pools=pools, hostPaths=["/mnt", "/srv"]) == ["/mnt", "/srv"]


def test_a_digest_decides_and_a_mirror_serves_all_images(helm: str) -> None:
    digest = "sha256:" + "0" * 64
    images = {
        name: container["image"]
        for name, container in containers(rendered(helm, imageRegistry="mirror:5000", image={"digest": digest}))
    }
    assert images["csi-local-path-node/driver"] == f"mirror:5000/csi-local-path/csi-local-path@{digest}"
    assert images["csi-local-path-controller/provisioner"] == "mirror:5000/sig-storage/csi-provisioner:v6.4.0"
    assert all(image.startswith("mirror:5000/") for image in images.values())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"nodes": [{"match": "a", "pools": [POOL]}]}, "hostPaths: wanted"),
        ({"pools": [{"name": "a", "path": "/var/lib/kubelet/a"}]}, "/var/lib/kubelet/a would be given"),
        ({"pools": [{"name": "a", "path": "/var/lib/a", "requireMount": True}]}, "/var/lib would be given"),
        ({"pools": [{"name": "a", "path": "/disk", "requireMount": True}]}, "directory / would be given"),
        ({"pools": [{"name": "A", "path": "/mnt"}]}, "pattern"),
        ({"pools": [{"name": "a"}]}, "path"),
        ({"nodeGroups": {"default": {"pools": [POOL]}}}, "default"),
        ({"classes": [{"name": "a", "parameters": {"moode": "0770"}}]}, "unknown parameter moode; known are"),
        ({"classes": [{"name": "a", "parameters": {"mode": "rwx"}}]}, "parameter mode: wanted"),
        ({"controller": {"replicas": 3}}, "replicas"),
        ({"provisioner": {"timeout": 10}}, "timeout"),
        ({"controler": {}}, "controler"),
    ],
)
def test_wrong_values_are_refused_by_name(helm: str, values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        rendered(helm, **values)


def test_helm_lint_has_nothing_to_say(helm: str) -> None:
    done = subprocess.run([helm, "lint", "--strict", str(CHART)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_versions_agree() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
