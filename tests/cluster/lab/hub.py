"""The hub: Kubernetes' control plane, and the bridge that the nodes plug into."""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.lab.commands import run
from tests.cluster.lab.pki import CA, PKI
from tests.cluster.lab.places import wait_until
from tests.cluster.lab.site import ADMIN, API_SERVICE, API_URL, FOLDER, HUB, HUB_ADDRESS, SERVICES, program
from tests.cluster.lab.supervisor import Program, hold, release

BRIDGE = "br0"
# Else it has the least of its cables' addresses: when a node reboots, and with it its cable, the hub's address changes,
# and for half a minute the other nodes send where nobody listens any more.
_BRIDGE_MAC = "02:00:c0:a8:42:01"


def prepare() -> None:
    """Set up the network, inside the hub's namespaces."""
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", f"{API_SERVICE}/32", "dev", "lo")
    run("ip", "link", "add", BRIDGE, "address", _BRIDGE_MAC, "type", "bridge")
    run("ip", "address", "add", f"{HUB_ADDRESS}/24", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    let_forward()


def let_forward() -> None:
    """Let the kernel pass packets on, in the network namespace that this process is in."""
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1\n")


def programs() -> list[Program]:
    """Give etcd and the control plane."""
    etcd = [program("etcd"), f"--data-dir={FOLDER}/etcd", "--unsafe-no-fsync", "--log-level=warn"]
    return [
        Program("etcd", etcd),
        Program("kube-apiserver", _apiserver()),
        Program("kube-controller-manager", _controller_manager(), api_ready),
        Program("kube-scheduler", [program("kube-scheduler"), *_client()], api_ready),
    ]


def api_ready() -> bool:
    """Tell whether the API server serves."""
    context = ssl.create_default_context(cafile=str(CA))
    context.load_cert_chain(f"{PKI}/admin.crt", f"{PKI}/admin.key")
    try:
        with urllib.request.urlopen(f"{API_URL}/readyz", context=context, timeout=5) as answer:  # noqa: S310  https
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def outage() -> Iterator[None]:
    """Take the API server away for a while."""
    hold(HUB, "kube-apiserver")
    try:
        yield
    finally:
        release(HUB, "kube-apiserver")
        wait_until(api_ready, "the API server serves again")


def _apiserver() -> list[str]:
    return [
        program("kube-apiserver"),
        "--etcd-servers=http://127.0.0.1:2379",
        "--bind-address=0.0.0.0",
        "--secure-port=443",
        f"--advertise-address={HUB_ADDRESS}",
        f"--service-cluster-ip-range={SERVICES}",
        f"--tls-cert-file={PKI}/apiserver.crt",
        f"--tls-private-key-file={PKI}/apiserver.key",
        f"--client-ca-file={CA}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-signing-key-file={PKI}/sa.key",
        f"--service-account-key-file={PKI}/sa.pub",
        f"--kubelet-client-certificate={PKI}/admin.crt",
        f"--kubelet-client-key={PKI}/admin.key",
        f"--kubelet-certificate-authority={CA}",
        "--kubelet-preferred-address-types=InternalIP",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        # A pod leaves a node that does not answer within seconds, else a test of that would take five minutes.
        "--default-not-ready-toleration-seconds=5",
        "--default-unreachable-toleration-seconds=5",
    ]


def _controller_manager() -> list[str]:
    return [
        program("kube-controller-manager"),
        *_client(),
        "--use-service-account-credentials",
        f"--flex-volume-plugin-dir={FOLDER}/flex",
        f"--service-account-private-key-file={PKI}/sa.key",
        f"--root-ca-file={CA}",
        # Likewise: 50 s by default. Four times the pause between two signs of life.
        "--node-monitor-grace-period=16s",
    ]


def _client() -> list[str]:
    """Give the flags of who uses the API. The limits are raised: by default they cap binding near 4 per second."""
    files = (f"--{use}kubeconfig={ADMIN}" for use in ("", "authentication-", "authorization-"))
    return [*files, "--leader-elect=false", "--kube-api-qps=400", "--kube-api-burst=800"]
