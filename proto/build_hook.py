"""Let the package build make the stubs as people do; named in [tool.hatch.build.hooks.custom]."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class StubsHook(BuildHookInterface[Any]):
    """Run generate.py before a wheel or an sdist takes its files."""

    def initialize(self, version: str, _build_data: dict[str, Any]) -> None:
        """Make the stubs; `version` is "standard", or "editable" for a development install.

        An editable install leaves the work tree alone: otherwise setting up an environment would hide stale
        stubs from `generate.py --check`.
        """
        if version != "editable":
            subprocess.run([sys.executable, "proto/generate.py"], cwd=self.root, check=True)
