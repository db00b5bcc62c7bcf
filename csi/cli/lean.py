"""Keeps `serve` small in memory.

Must run before grpc and structlog are imported, so nothing here imports either.
"""

from __future__ import annotations

import gc
import os
import sys


def slim_down() -> None:
    """Prepare a process that will serve; before the first import of grpc and structlog."""
    # Nothing forks here: without fork handlers gRPC keeps no book of its threads. Its own log lines
    # below errors are not in our format.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    _import_structlog_without_rich()


def settle() -> None:
    """Take what start-up made out of the garbage collector's rounds; when all is loaded."""
    gc.collect()
    gc.freeze()


def _import_structlog_without_rich() -> None:
    """Save 2 to 4 MB: structlog imports rich for coloured tracebacks, which `serve` never prints."""
    if "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment] # makes `import rich` fail
    try:
        import structlog  # noqa: F401, PLC0415 - for its effect
    finally:
        del sys.modules["rich"]
