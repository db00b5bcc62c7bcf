"""What the Helm chart promises: what it renders, as it is shipped and with other values, and what it refuses."""

import json
import subprocess
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from csi.config import parse, to_configuration, to_settings
from tests.support.chart import CHART, EVERYTHING, POOL, ROOT, Object, helm, rendered

ROLLING = {"maxSurge": 0}


def of_kind(objects: list[Object], kind: str) -> dict[str, Object]:
    return {found["metadata"]["name"]: found for found in objects if found["kind"] == kind}


def containers(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Give each container with the name of its workload and its own."""
    for found in objects:
        if found["kind"] in ("DaemonSet", "Deployment"):
            for container in found["spec"]["template"]["spec"]["containers"]:
                yield f"{found['metadata']['name']}/{container['name']}", container


VARIANTS: dict[str, dict[str, Any]] = {"shipped": {}, "everything": EVERYTHING}


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_the_driver_of_a_node_is_privileged(variant: str) -> None:
    for name, container in containers(rendered(**VARIANTS[variant])):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"], name
        if name.startswith("csi-local-path-node") and name.endswith("/driver"):
            assert context["privileged"]
            continue
        assert "privileged" not in context, name
        assert context["capabilities"] == {"drop": ["ALL"]}, name
        assert context["allowPrivilegeEscalation"] is False, name


@pytest.mark.parametrize("variant", VARIANTS)
def test_system_calls_are_filtered_everywhere_and_the_registrar_is_root_without_capabilities(variant: str) -> None:
    registrars = []
    for found in rendered(**VARIANTS[variant]):
        if found["kind"] not in ("DaemonSet", "Deployment"):
            continue
        pod = found["spec"]["template"]["spec"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not any("seccompProfile" in container["securityContext"] for container in pod["containers"])
        registrars += [c["securityContext"] for c in pod["containers"] if c["name"] == "registrar"]
    assert registrars
    for context in registrars:
        assert (context["runAsUser"], context["capabilities"]) == (0, {"drop": ["ALL"]})


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_driver_is_restarted_by_its_own_health_alone(variant: str) -> None:
    drivers = [found for name, found in containers(rendered(**VARIANTS[variant])) if name.endswith("/driver")]
    assert len(drivers) >= 2
    for driver in drivers:
        paths = [driver[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")]
        assert paths == ["/healthz", "/healthz", "/readyz"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_disk_that_is_mounted_later_is_seen_by_the_agent(variant: str) -> None:
    pools = [
        mount
        for _, container in containers(rendered(**VARIANTS[variant]))
        for mount in container["volumeMounts"]
        if mount["name"].startswith("pools-")
    ]
    assert pools
    assert {mount.get("mountPropagation") for mount in pools} == {"HostToContainer"}


def test_controllers_are_no_root_and_only_drivers_of_nodes_have_a_token() -> None:
    objects = rendered()
    controller = of_kind(objects, "Deployment")["csi-local-path-controller"]["spec"]["template"]["spec"]
    assert controller["securityContext"]["runAsNonRoot"]
    assert all("runAsUser" not in c["securityContext"] for c in controller["containers"])
    node = of_kind(objects, "DaemonSet")["csi-local-path-node"]["spec"]["template"]["spec"]
    assert node["automountServiceAccountToken"] is False
    assert [c["name"] for c in node["containers"] if any(m["name"] == "token" for m in c["volumeMounts"])] == ["driver"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_pool_is_never_made_and_agents_never_overlap(variant: str) -> None:
    for agents in of_kind(rendered(**VARIANTS[variant]), "DaemonSet").values():
        assert agents["spec"]["updateStrategy"]["rollingUpdate"].items() >= ROLLING.items()
        volumes = agents["spec"]["template"]["spec"]["volumes"]
        made = [v["name"] for v in volumes if v.get("hostPath", {}).get("type") != "Directory" and "hostPath" in v]
        assert made == ["plugin"]


def test_groups_share_no_node() -> None:
    agents = of_kind(rendered(**EVERYTHING), "DaemonSet")
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


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_driver_accepts_every_configuration(variant: str) -> None:
    found = of_kind(rendered(**VARIANTS[variant]), "ConfigMap")
    assert {"csi-local-path-node", "csi-local-path-controller"} <= set(found)
    for config in found.values():
        to_configuration(parse(config["data"]["config.yaml"]))


def test_the_driver_accepts_the_configuration_of_a_node() -> None:
    config = of_kind(rendered(kubeletDir="/var/lib/k0s/kubelet"), "ConfigMap")["csi-local-path-node"]
    settings = to_settings(parse(config["data"]["config.yaml"]))
    assert settings.target_roots == ["/var/lib/k0s/kubelet"]
    assert [(pool.name, pool.path, pool.init) for pool in settings.pools] == [
        ("default", "/var/lib/csi-local-path", "if-empty")
    ]


def host_paths(**values: object) -> list[str]:
    """Give the host's directories in which an agent sees pools."""
    agent = of_kind(rendered(**values), "DaemonSet")["csi-local-path-node"]["spec"]["template"]["spec"]
    return [v["hostPath"]["path"] for v in agent["volumes"] if v["name"].startswith("pools-")]


def test_a_pool_that_must_be_a_mount_is_seen_from_above() -> None:
    pools = [POOL, {"name": "b", "path": "/srv/b", "requireMount": True}, {"name": "c", "path": "/srv/c/"}]
    assert host_paths(pools=pools) == ["/mnt/disk", "/srv", "/srv/c"]
    assert host_paths(pools=pools, hostPaths=["/mnt", "/srv"]) == ["/mnt", "/srv"]


def test_metrics_are_read_where_the_operator_is() -> None:
    assert not of_kind(rendered(), "PodMonitor")
    (monitor,) = of_kind(rendered(podMonitor={"enabled": True, "labels": {"team": "a"}}), "PodMonitor").values()
    assert monitor["metadata"]["labels"]["team"] == "a"
    ports = {port["name"] for _, container in containers(rendered()) for port in container["ports"]}
    assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= ports


def test_a_digest_decides_and_a_mirror_serves_all_images() -> None:
    digest = "sha256:" + "0" * 64
    images = {
        name: container["image"]
        for name, container in containers(rendered(imageRegistry="mirror:5000", image={"digest": digest}))
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
        ({"classes": [{"name": "a", "parameters": {"uid": "4294967295"}}]}, "parameter uid: wanted a number from 0"),
        ({"controller": {"replicas": 3}}, "replicas"),
        ({"provisioner": {"timeout": 10}}, "timeout"),
        ({"controler": {}}, "controler"),
    ],
)
def test_wrong_values_are_refused_by_name(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        rendered(**values)


def test_helm_lint_has_nothing_to_say() -> None:
    done = subprocess.run([helm(), "lint", "--strict", str(CHART)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_versions_agree() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.mark.parametrize(
    ("placement", "how", "tolerated"),
    [
        ("prefer-control-plane", "preferredDuringSchedulingIgnoredDuringExecution", True),
        ("require-control-plane", "requiredDuringSchedulingIgnoredDuringExecution", True),
        ("anywhere", None, False),
    ],
)
def test_controllers_are_placed(placement: str, how: str | None, tolerated: bool) -> None:
    deployment = of_kind(rendered(controller={"placement": placement}), "Deployment")["csi-local-path-controller"]
    pod = deployment["spec"]["template"]["spec"]
    assert list(pod.get("affinity", {}).get("nodeAffinity", {})) == ([how] if how else [])
    keys = {toleration["key"] for toleration in pod["tolerations"]}
    assert ("node-role.kubernetes.io/control-plane" in keys) is tolerated


def test_a_single_controller_has_no_budget_that_would_stop_every_drain() -> None:
    assert of_kind(rendered(), "PodDisruptionBudget")
    assert not of_kind(rendered(controller={"replicas": 1}), "PodDisruptionBudget")
