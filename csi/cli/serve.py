"""`csi-local-path serve`: its options. What it does is in csi.cli.serving, imported once memory is ready."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from csi.cli.lean import slim_down
from csi.cli.options import config_option

# In a cluster the kubelet and Prometheus come to the pod's own address.
_HTTP_PORTS = {"standalone": 0, "node": 9902, "controller": 9903}
_HTTP_HOSTS = {"standalone": "127.0.0.1", "node": "", "controller": ""}


@click.command()
@click.option(
    "--role", type=click.Choice(["standalone", "node", "controller"]), default="standalone", show_default=True
)
@config_option
@click.option("--endpoint", envvar="CSI_ENDPOINT", required=True, show_envvar=True, help="unix:///path/to/csi.sock")
@click.option("--node-id", default="", help="Instead of nodeId in the file, NODE_NAME, or the host's name.")
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=25.0,
    show_default=True,
    help="Seconds for running calls at the end.",
)
@click.option(
    "--listen-port",
    type=click.IntRange(0, 65535),
    default=9901,
    show_default=True,
    help="Role node: where controllers reach this node, over mutual TLS; 0 for any that is free.",
)
@click.option(
    "--http-port",
    type=click.IntRange(0, 65535),
    help="For /healthz, /readyz and /metrics; 0 for none.  [default: 0; role node 9902, controller 9903]",
)
@click.option(
    "--http-host", help="Address for --http-port; '' for all.  [default: 127.0.0.1; roles node and controller: all]"
)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def serve(
    role: str,
    config: Path,
    endpoint: str,
    node_id: str,
    grace: float,
    listen_port: int,
    http_port: int | None,
    http_host: str | None,
    log_level: str,
    log_format: str,
) -> None:
    """Serve volumes on a unix socket until SIGTERM.

    standalone: those of this machine. node, controller: those of a Kubernetes cluster, for the kubelet on each node,
    and for csi-provisioner and csi-resizer; they read POD_NAME, POD_NAMESPACE, and for a node NODE_NAME and POD_IP.

    Exit status: 0 after a stop that was asked for, 1 if a pool, the socket or a port cannot be had, 2 if the
    configuration is wrong.
    """
    slim_down()
    from csi import logs  # noqa: PLC0415 - after slim_down
    from csi.cli.roles import Options  # noqa: PLC0415 - likewise
    from csi.cli.serving import run  # noqa: PLC0415 - likewise

    logs.configure(log_level, "json" if log_format == "json" else "text")
    host = _HTTP_HOSTS[role] if http_host is None else http_host
    port = _HTTP_PORTS[role] if http_port is None else http_port
    sys.exit(run(Options(role, config, endpoint, node_id, grace, listen_port, host, port)))
