"""Programs run to their end, with what they wrote in the error."""

from __future__ import annotations

import subprocess

from tests.cluster.lab.places import ClusterError


def run(*argv: str, patience_s: float = 120.0) -> str:
    """Run a program and give what it printed; raises ClusterError with its words when it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=patience_s, check=False)
    if done.returncode:
        raise ClusterError(f"{' '.join(argv)}: exit status {done.returncode}\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout
