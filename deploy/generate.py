"""Make what is derived in deploy/ and docs/: the one command that people and CI run.

    python deploy/generate.py            write the files
    python deploy/generate.py --check    exit 1 where a file is not what its source gives

| file | made from |
|---|---|
| files/class-parameters.json of the chart | provisioner/parameters.py: what the admission policy refuses |
| values.yaml of the chart | its values.schema.json: every default with its reason |
| docs/reference/helm-values.md | the same |
| deploy/manifests/csi-local-path.yaml | the chart with its defaults, by helm (`.ci/setup helm`) |
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from provisioner.parameters import METADATA_PREFIX, SCHEMA

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "deploy/chart/csi-local-path"
NAMESPACE = "csi-local-path"
COMMAND = "python deploy/generate.py"
WIDTH = 118

Node = dict[str, Any]  # a part of a JSON schema


def class_parameters() -> str:
    """Give the table of class parameters as the policy's template reads it."""
    known = {
        name: {"wanted": parameter.wanted, "pattern": parameter.pattern}
        | ({} if parameter.highest is None else {"highest": parameter.highest})
        for name, parameter in SCHEMA.items()
    }
    return json.dumps({"ignoredPrefix": METADATA_PREFIX, "parameters": known}, indent=2) + "\n"


def values() -> str:
    """Give the chart's values.yaml."""
    head = f"# Made from values.schema.json by `{COMMAND}`; change that file.\n"
    return head + "".join(_value(name, node, "") for name, node in _schema()["properties"].items())


def _value(name: str, node: Node, indent: str) -> str:
    if "properties" not in node and "default" not in node:
        return ""  # `global`, which helm adds by itself
    comment = textwrap.wrap(node.get("description", ""), WIDTH - len(indent))
    text = ("\n" if not indent else "") + "".join(f"{indent}# {line}\n" for line in comment)
    if "properties" in node:
        return f"{text}{indent}{name}:\n" + "".join(_value(k, n, indent + "  ") for k, n in node["properties"].items())
    return text + textwrap.indent(yaml.safe_dump({name: node["default"]}, sort_keys=False, width=WIDTH), indent)


def reference() -> str:
    """Give the page of docs/ about the values."""
    schema = _schema()
    parts = [
        "# Values of the Helm chart\n",
        f"Made from `deploy/chart/csi-local-path/values.schema.json` by `{COMMAND}`.",
        "An unknown key is refused by helm, one of a pool or of `settings` by the driver when it starts.\n",
        "The same holds for pools and settings as in the [configuration](configuration.md); how to choose is told in",
        "[how to install](../how-to/install.md).\n",
        *_table(_rows(schema["properties"], "")),
        "## A class\n",
        *_table((f"`{k}`", _default(n), n["description"]) for k, n in schema["$defs"]["class"]["properties"].items()),
    ]
    return "\n".join(parts)


def _rows(properties: Node, prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, node in properties.items():
        if "properties" in node:
            yield from _rows(node["properties"], f"{prefix}{name}.")
        elif "default" in node:
            yield f"`{prefix}{name}`", _default(node), node["description"]


def _default(node: Node) -> str:
    return f"`{json.dumps(node['default'], ensure_ascii=False)}`" if "default" in node else ""


def _table(rows: Iterator[tuple[str, str, str]]) -> list[str]:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return ["| key | default | meaning |", "|---|---|---|", *lines, ""]


def manifests() -> str:
    """Give the chart with its defaults as plain manifests, the namespace first."""
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        # The agents' driver is privileged: it mounts.
        "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "privileged"}},
    }
    command = [helm(), "template", "csi-local-path", str(CHART), "--namespace", NAMESPACE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"helm template: {done.stderr}")
    head = f"# Made from deploy/chart/csi-local-path by `{COMMAND}`; change that.\n"
    return head + yaml.safe_dump(namespace, sort_keys=False) + done.stdout


def helm() -> str:
    """Name the helm that `.ci/setup helm` provides, making it where it is not there yet."""
    if subprocess.run([ROOT / ".ci/setup", "helm"], check=False).returncode:
        sys.exit(".ci/setup helm failed, see above")
    return str(ROOT / ".cache/helm/helm")


FILES: dict[Path, Callable[[], str]] = {  # later ones may be made of earlier ones
    CHART / "files/class-parameters.json": class_parameters,
    CHART / "values.yaml": values,
    ROOT / "docs/reference/helm-values.md": reference,
    ROOT / "deploy/manifests/csi-local-path.yaml": manifests,
}


def _schema() -> Node:
    schema: Node = json.loads((CHART / "values.schema.json").read_text())
    return schema


def main() -> None:
    """Write the files, or say which ones are stale."""
    parser = argparse.ArgumentParser(description="Make what is derived in deploy/ and docs/.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where a file is stale")
    check = parser.parse_args().check
    for path, content in FILES.items():
        wanted = content()
        if path.exists() and path.read_text() == wanted:
            continue
        if check:
            sys.exit(f"{path.relative_to(ROOT)} is not what its source gives: run `{COMMAND}`")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted)
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
