"""A node: its own mounts, network and processes, with containerd and a kubelet.

Nothing of it is written outside of its folder: where programs insist on a path, the folder is mounted there.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster.lab import cgroups, pki
from tests.cluster.lab.commands import run
from tests.cluster.lab.hub import let_forward
from tests.cluster.lab.places import wait_until
from tests.cluster.lab.pools import mount_pools
from tests.cluster.lab.site import HUB_ADDRESS, Node, nodes, program
from tests.cluster.lab.supervisor import Program

PAUSE_IMAGE = "registry.k8s.io/pause:3.10.2"
CONTAINERD_SOCKET = Path("/run/containerd/containerd.sock")

# Paths that outlive a reboot, and the folder below the node's own that lies there.
_KEPT = {"/var/lib/kubelet": "kubelet", "/var/lib/cni": "cni", "/var/log": "log", "/opt": "opt"}
# Paths that are empty after a reboot.
_EMPTY = ("/run", "/mnt")
# What the kubelet would set on the whole machine, it finds set already.
_SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


def prepare(node: Node) -> None:
    """Set up mounts and network, inside the node's namespaces."""
    run("hostname", node.name)
    run("mount", "--make-rshared", "/")
    for path in _EMPTY:
        run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", path)
    for path, name in _KEPT.items():
        (node.folder / name).mkdir(parents=True, exist_ok=True)
        Path(path).mkdir(exist_ok=True)
        run("mount", "--bind", str(node.folder / name), path)
    for name, value in _SYSCTLS.items():
        pretended = Path("/run/sysctls") / name
        pretended.parent.mkdir(parents=True, exist_ok=True)
        pretended.write_text(f"{value}\n")
        run("mount", "--bind", str(pretended), f"/proc/sys/{name}")
    mount_pools(node)
    _prepare_network(node)
    _write_settings(node)


def programs(node: Node) -> list[Program]:
    """Give containerd and the kubelet."""
    kubelet = [
        program("kubelet"),
        f"--config={node.folder}/kubelet.json",
        f"--kubeconfig={pki.kubeconfig(node)}",
        f"--hostname-override={node.name}",
        f"--node-ip={node.address}",
    ]
    return [
        Program("containerd", [program("containerd"), "--config", f"{node.folder}/containerd.toml"]),
        Program("kubelet", kubelet, CONTAINERD_SOCKET.exists),
    ]


def _prepare_network(node: Node) -> None:
    """Wait for the cable, which is plugged in from outside, and make the way to the other nodes' pods."""
    wait_until(lambda: "eth0" in run("ip", "link"), "eth0 is there")
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", f"{node.address}/24", "dev", "eth0")
    run("ip", "link", "set", "eth0", "up")
    run("ip", "route", "add", "default", "via", HUB_ADDRESS)
    for other in nodes():
        if other != node:
            run("ip", "route", "add", other.pods, "via", other.address)
    let_forward()


def _write_settings(node: Node) -> None:
    (node.folder / "cni.d").mkdir(exist_ok=True)
    (node.folder / "cni.d/10-pods.conflist").write_text(json.dumps(_cni(node)))
    (node.folder / "containerd.toml").write_text(_containerd(node))
    (node.folder / "kubelet.json").write_text(json.dumps(_kubelet(node)))


def _cni(node: Node) -> dict[str, object]:
    addresses = {"type": "host-local", "ranges": [[{"subnet": node.pods}]], "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "ipam": addresses}
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]}


def _containerd(node: Node) -> str:
    # restrict_oom_score_adj: root may lack CAP_SYS_RESOURCE, and then no sandbox would start without it.
    return f"""
version = 2
root = "{node.folder}/containerd"
state = "/run/containerd"
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{node.folder}/cni.d"
"""


def _kubelet(node: Node) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroups.name(node)}",
        "failSwapOn": False,
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki.CA)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{pki.PKI}/{node.name}.crt",
        "tlsPrivateKeyFile": f"{pki.PKI}/{node.name}.key",
        "resolvConf": "",
        "clusterDNS": ["10.96.0.10"],  # nobody answers there, but the kubelet does not complain of its absence
        "volumePluginDir": f"{node.folder}/flex",
        "nodeStatusUpdateFrequency": "4s",
        "nodeLeaseDurationSeconds": 16,
        "volumeStatsAggPeriod": "10s",  # tests wait for figures
        "imageGCHighThresholdPercent": 100,  # images cannot be had again
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "makeIPTablesUtilChains": False,
    }
