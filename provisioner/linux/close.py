"""close(2) of O_PATH descriptors, which ends no file's work and so never waits: it keeps the GIL."""

from __future__ import annotations

import ctypes

from provisioner.linux.libc import function

close_path = function("close", ctypes.c_int, brief=True)
