"""Images of a cluster without a registry: archives that `ctr images import` reads, made from this machine's programs.

One layer each. Where an image cannot be had, a stand-in lies under its name: Debian's static busybox with its
applets, and in front of it the programs that the image is used for.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.lab.node import PAUSE_IMAGE
from tests.cluster.lab.places import ClusterError
from tests.cluster.lab.site import IMAGES, PROGRAMS

_BUSYBOX = Path("/bin/busybox")
_E2E = "registry.k8s.io/e2e-test-images"
_SIG = "registry.k8s.io/sig-storage"
BUSYBOX_IMAGE = f"{_E2E}/busybox:1.37.0-2"
_FOLDERS = {"tmp": 0o1777, "root": 0o700, "opt": 0o777, "data": 0o777}
_FOLDERS |= dict.fromkeys(("bin", "etc", "mnt", "proc", "sys", "dev", "var"), 0o755)


@dataclass(frozen=True)
class Image:
    """An image to make. files: where each comes to lie, and whence. without: applets that are left out."""

    name: str
    tags: list[str]
    entrypoint: list[str] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)
    busybox: bool = True
    without: tuple[str, ...] = ()


def _own(name: str, tag: str) -> Image:
    return Image(name, [tag], [f"/{name}"], {name: PROGRAMS / name}, busybox=False)


def _images() -> list[Image]:
    # GNU dd for its oflag=nocache, and another shell, since busybox's prefers its own dd to the one on the path.
    libc, loader = Path("/lib/x86_64-linux-gnu/libc.so.6"), Path("/lib64/ld-linux-x86-64.so.2")
    gnu = {
        "bin/sh": Path("/bin/dash"),
        "bin/dd": Path("/bin/dd"),
        str(libc).lstrip("/"): libc,  # where the loader looks
        f"lib64/{loader.name}": loader,
    }
    return [
        Image("pause", [PAUSE_IMAGE], ["/bin/sleep", "infinity"]),
        Image("busybox", [BUSYBOX_IMAGE, f"{_E2E}/nginx:1.27.0-2", "docker.io/library/busybox:1.37"]),
        Image("agnhost", [f"{_E2E}/agnhost:2.66.1"], ["/agnhost"], {"agnhost": PROGRAMS / "agnhost"}),
        Image("glibc", [f"{_E2E}/glibc-dns-testing:2.1.1"], [], gnu, without=("dd", "sh")),
        _own("csi-provisioner", f"{_SIG}/csi-provisioner:v6.4.0"),
        _own("csi-resizer", f"{_SIG}/csi-resizer:v2.3.0"),
        _own("registrar", f"{_SIG}/csi-node-driver-registrar:v2.18.0"),
    ]


def make_archives() -> list[Path]:
    """Give the archives of all images, made where their programs, or what is said here of them, are new."""
    own = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    folder = IMAGES / f"{PROGRAMS.resolve().name}-{own}"
    if not folder.exists():
        new = folder.with_suffix(".new")
        new.mkdir(parents=True, exist_ok=True)
        for image in _images():
            _write(image, new / f"{image.name}.tar")
        new.rename(folder)
    return sorted(folder.glob("*.tar"))


def _write(image: Image, archive: Path) -> None:
    layer = _layer(image)
    digest = hashlib.sha256(layer).hexdigest()
    run = {"Env": ["PATH=/bin:/usr/bin"], "Entrypoint": image.entrypoint, "Cmd": []}
    if not image.entrypoint:
        run |= {"Entrypoint": [], "Cmd": ["/bin/sh"]}
    if image.name == "agnhost":
        run["Cmd"] = ["pause"]
    layers = {"type": "layers", "diff_ids": [f"sha256:{digest}"]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": run, "rootfs": layers}).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": image.tags, "Layers": [f"{digest}/layer.tar"]}]
    with tarfile.open(archive, "w") as tar:
        _add(tar, name, config)
        _add(tar, f"{digest}/layer.tar", layer)
        _add(tar, "manifest.json", json.dumps(manifest).encode())


def _layer(image: Image) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for folder, mode in _FOLDERS.items():
            _add(tar, folder, mode=mode, kind=tarfile.DIRTYPE)
        _add(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")
        _add(tar, "etc/group", b"root:x:0:\nnobody:x:65534:\n")
        if image.busybox:
            _add(tar, "bin/busybox", _static_busybox(), 0o755)
            for applet in _applets():
                if applet not in {"busybox", *image.without}:
                    _add(tar, f"bin/{applet}", kind=tarfile.SYMTYPE, link="busybox")
        for target, source in image.files.items():
            _add(tar, target, source.read_bytes(), 0o755)
    return raw.getvalue()


def _add(
    tar: tarfile.TarFile, name: str, data: bytes = b"", mode: int = 0o644, kind: bytes = tarfile.REGTYPE, link: str = ""
) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.type, entry.linkname, entry.size = mode, kind, link, len(data)
    tar.addfile(entry, io.BytesIO(data))


def _static_busybox() -> bytes:
    program = _BUSYBOX.read_bytes()
    if b"ld-linux" in program[:4096]:  # where the header names the loader
        raise ClusterError(f"{_BUSYBOX} needs libraries; wanted Debian's package busybox-static")
    return program


def _applets() -> list[str]:
    return subprocess.run([_BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout.split()
