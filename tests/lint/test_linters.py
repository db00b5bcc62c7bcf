"""The linters, as tests: one place says what they are, for people and for CI."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent

LINTERS = {
    "ruff check": ["ruff", "check", "--output-format=concise"],
    "ruff format": ["ruff", "format", "--check"],
    "mypy": ["mypy"],
    "import-linter": ["lint-imports"],
    "fresh stubs": ["python", "proto/generate.py", "--check"],
    "fresh chart and docs": ["python", "deploy/generate.py", "--check"],
    "fresh lock": [str(ROOT / ".ci/setup"), "lock"],
    "shell": ["/bin/bash", "-n", ".ci/run", ".ci/setup", "tests/cluster/programs/build"],
}


@pytest.mark.parametrize("name", LINTERS)
def test_linter_has_nothing_to_say(name: str) -> None:
    program, *arguments = LINTERS[name]
    unmeasured = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}
    done = subprocess.run(
        [PROGRAMS / program, *arguments], cwd=ROOT, env=unmeasured, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{name}:\n{done.stdout}{done.stderr}"
