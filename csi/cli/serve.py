"""`csi-local-path serve`: its options. What it does is in csi.cli.serving, imported once memory is ready."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from csi.cli.lean import slim_down
from csi.cli.options import config_option


@click.command()
@click.option("--role", type=click.Choice(["standalone"]), default="standalone", show_default=True)
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
    "--http-port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="For /healthz, /readyz and /metrics; 0 for none.",
)
@click.option("--http-host", default="127.0.0.1", show_default=True, help="Address for --http-port; '' for all.")
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
    http_port: int,
    http_host: str,
    log_level: str,
    log_format: str,
) -> None:
    """Serve volumes on a unix socket until SIGTERM.

    Exit status: 0 after a stop that was asked for, 1 if a pool, the socket or a port cannot be had, 2 if the
    configuration is wrong.
    """
    slim_down()
    from csi import logs  # noqa: PLC0415 - after slim_down
    from csi.cli.serving import Options, run  # noqa: PLC0415 - likewise

    logs.configure(log_level, "json" if log_format == "json" else "text")
    sys.exit(run(Options(role, config, endpoint, node_id, grace, http_host, http_port)))
