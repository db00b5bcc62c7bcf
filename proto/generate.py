"""Make the stubs in csi/pb/ from csi.proto: the one command that people, CI and the package build run.

    python proto/generate.py            write the stubs
    python proto/generate.py --check    exit 1 where the stubs are not what csi.proto gives

Needs grpcio-tools and mypy-protobuf beside the interpreter. Their versions show in the stubs, so they are
pinned twice: in uv.lock for people and CI, in [build-system] for the package build.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path("csi/pb")
STUBS = ("csi_pb2.py", "csi_pb2.pyi", "csi_pb2_grpc.py", "csi_pb2_grpc.pyi")
COMMAND = "python proto/generate.py"


def compile_interface(out: Path) -> None:
    """Write the stubs below `out`; exits where csi.proto does not compile, below protoc's own message.

    The file is compiled under the virtual path csi/pb/csi.proto: protoc derives the module from the path,
    and the service stubs must import `csi.pb.csi_pb2`.
    """
    arguments = [
        f"-I{FOLDER}={ROOT / 'proto'}",
        f"--python_out={out}",
        f"--pyi_out={out}",
        f"--grpc_python_out={out}",
        # Services without the async variants and without abstract methods: a servicer that implements
        # half of the RPCs is the rule in CSI, and ours block by design.
        f"--mypy_grpc_out=quiet,only_sync,generate_concrete_servicer_stubs:{out}",
        f"--plugin=protoc-gen-mypy_grpc={_plugin('protoc-gen-mypy_grpc')}",
        str(FOLDER / "csi.proto"),
    ]
    if subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *arguments], check=False).returncode:
        sys.exit("proto/csi.proto could not be compiled; csi/pb/ is as it was")


def _plugin(program: str) -> str:
    """Find a protoc plugin beside this interpreter first: a virtual environment need not be activated."""
    found = shutil.which(program, path=sysconfig.get_path("scripts")) or shutil.which(program)
    if found is None:
        sys.exit(f"{program} is not installed beside {sys.executable}; it comes with mypy-protobuf")
    return found


def stale_stubs(folder: Path = ROOT / FOLDER) -> list[str]:
    """Name the stubs in `folder` that are missing or differ from what csi.proto gives now."""
    with tempfile.TemporaryDirectory() as out:
        compile_interface(Path(out))
        return [name for name in STUBS if _content(folder / name) != _content(Path(out) / FOLDER / name)]


def write_stubs() -> list[str]:
    """Bring the stubs up to date and name those that changed; the others keep their time stamps."""
    with tempfile.TemporaryDirectory(dir=ROOT / FOLDER, prefix=".generate-") as out:
        compile_interface(Path(out))
        made = [Path(out) / FOLDER / name for name in STUBS]
        changed = [path for path in made if path.read_bytes() != _content(ROOT / FOLDER / path.name)]
        for path in changed:
            path.replace(ROOT / FOLDER / path.name)
    return [path.name for path in changed]


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def main() -> None:
    """Parse the command line and say what was done."""
    parser = argparse.ArgumentParser(description="Make the stubs in csi/pb/ from proto/csi.proto.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where a stub is stale")
    if parser.parse_args().check:
        stale = stale_stubs()
        if stale:
            sys.exit(f"stale in {FOLDER}/: {', '.join(stale)}; run `{COMMAND}` and commit the result")
        sys.stdout.write(f"{FOLDER}/ is what proto/csi.proto gives\n")
        return
    changed = write_stubs()
    sys.stdout.write(f"{FOLDER}/: {', '.join(changed) if changed else 'nothing'} changed\n")


if __name__ == "__main__":
    main()
