"""How long tests wait for what must come: an emulated machine is slow."""

from __future__ import annotations

import os

PATIENCE = float(os.environ.get("PATIENCE", "1"))
"""What every time to wait is multiplied with."""
