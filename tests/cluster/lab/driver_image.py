"""The driver's own image, from the real Dockerfile, by Debian's buildah.

The base is Debian itself, bootstrapped: neither a registry nor a container engine is needed. Mounts that buildah
makes stay in a namespace of its own.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.lab.site import IMAGES, ROOT, program

_RELEASE = "trixie"
_BASE = f"localhost/debian:{_RELEASE}-slim"
_BUILDAH = ROOT / ".cache/buildah"
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
_AUTHORITIES_INSIDE = "/run/authorities.crt"  # elsewhere, for Debian writes the same file there
# As Debian's slim images leave out.
_LEFT_OUT = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "var/lib/apt/lists",
    "var/cache/apt",
)


def version() -> str:
    """Give the version that the image is tagged with."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def tag() -> str:
    """Give the image's name, as the chart has it."""
    return f"ghcr.io/csi-local-path/csi-local-path:{version()}"


def make_driver_archive() -> Path:
    """Give the archive of the image, built where the code is new."""
    archive = IMAGES / f"driver-{_digest()}.tar"
    if not archive.exists():
        IMAGES.mkdir(parents=True, exist_ok=True)
        _ensure_base()
        _build()
        new = archive.with_suffix(".new")
        new.unlink(missing_ok=True)
        _buildah("push", "--disable-compression", tag(), f"docker-archive:{new}:{tag()}")
        for old in IMAGES.glob("driver-*.tar"):
            old.unlink()
        new.rename(archive)
    return archive


def _build() -> None:
    arguments = [f"BASE={_BASE}", f"VERSION={version()}"]
    if _AUTHORITIES.exists():
        arguments += [f"SSL_CERT_FILE={_AUTHORITIES_INSIDE}", f"PIP_CERT={_AUTHORITIES_INSIDE}"]
    built = [word for argument in arguments for word in ("--build-arg", argument)]
    volume = f"{_AUTHORITIES}:{_AUTHORITIES_INSIDE}:ro"
    _buildah("bud", "--layers", "--network=host", "--pull-never", "--volume", volume, *built, "--tag", tag(), str(ROOT))


def _ensure_base() -> None:
    if _BASE in _buildah("images", "--format", "{{.Name}}:{{.Tag}}", told=True):
        return
    folder = _BUILDAH / "base"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _say(f"debootstrap {_RELEASE}")
    _private(program("debootstrap"), "--variant=minbase", _RELEASE, str(folder))
    for path in _LEFT_OUT:
        shutil.rmtree(folder / path, ignore_errors=True)
    made = _buildah("from", "scratch", told=True).strip()
    _buildah("copy", made, str(folder), "/")
    _buildah("commit", "--rm", made, _BASE)
    shutil.rmtree(folder)


def _buildah(command: str, *arguments: str, told: bool = False) -> str:
    _say(f"buildah {command}")
    storage = [f"--root={_BUILDAH}/storage", f"--runroot={_BUILDAH}/run"]
    return _private(program("buildah"), *storage, command, *arguments, told=told)


def _private(*argv: str, told: bool = False) -> str:
    """Run a program with mounts of its own; gives what it printed if it is to be told, else prints it to stderr."""
    done = subprocess.run(
        ["unshare", "--mount", *argv],
        check=True,
        text=True,
        stdout=subprocess.PIPE if told else sys.stderr,
        env={**os.environ, "BUILDAH_ISOLATION": "chroot", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        timeout=1800,
    )
    return done.stdout or ""


def _digest() -> str:
    digest = hashlib.sha256()
    for file in sorted(_context()):
        digest.update(f"{file.relative_to(ROOT)}\0{file.stat().st_size}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _context() -> Iterator[Path]:
    """Give the files that the image is made of."""
    for name in ("Dockerfile", ".dockerignore", "pyproject.toml", "uv.lock", "README.md", "LICENSE", "CHANGELOG.md"):
        yield ROOT / name
    for folder in ("proto", "csi", "provisioner"):
        yield from (file for file in (ROOT / folder).rglob("*") if file.is_file() and "__pycache__" not in file.parts)


def _say(what: str) -> None:
    print(f"-- {what}", file=sys.stderr)
