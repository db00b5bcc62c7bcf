"""The configuration file: YAML to `Configuration`, and to the settings of one node, with messages that name the key.

pools[0].overcommit: wanted a number > 0 and <= 1000, found 'x' (in /etc/csi-local-path/config.yaml)
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import yaml

from csi.configuration import Configuration, check_nodes, settings_of
from csi.node_id import node_name
from provisioner.settings import Settings, SettingsError, check

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from yaml import SafeLoader as _SafeLoader
else:  # libyaml is several times faster, but PyYAML may have been built without it
    _SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_Found = TypeVar("_Found")

DEFAULT_PATH = "/etc/csi-local-path/config.yaml"

_LARGEST_BYTES = 2**20
_TEXT_SHOWN = 80
_TEXT_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")
_STEP = re.compile(r"\.(?P<key>[^.\[]+)|\[(?P<index>\d+)\]")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>.*)`")
_MISSING = re.compile(r"Object missing required field `(?P<key>.*)`")


def load_settings(path: Path) -> Settings:
    """Read what the file says of this node; SettingsError says which key is wrong and how, and in which file."""
    return _from_file(path, to_settings)


def load_configuration(path: Path) -> Configuration:
    """Read the whole file; SettingsError as `load_settings`."""
    return _from_file(path, to_configuration)


def _from_file(path: Path, read: Callable[[object], _Found]) -> _Found:
    try:
        return read(parse(_read(path)))
    except SettingsError as error:
        raise SettingsError(f"{error} (in {path})") from error


def to_settings(raw: object) -> Settings:
    """Check plain data, as YAML or JSON gives it, and give what it says of this node."""
    if raw is None:
        raise SettingsError("pools: wanted a list of pools, found an empty file")
    return settings_of(to_configuration(raw), node_name())


def to_configuration(raw: object) -> Configuration:
    """Check plain data; an empty file is one in which all is as usual."""
    try:
        configuration = msgspec.convert({} if raw is None else raw, Configuration)
    except msgspec.ValidationError as error:
        raise SettingsError(_sentence(str(error), raw)) from error
    check(configuration)
    check_nodes(configuration.nodes)
    return configuration


def parse(text: str) -> object:
    """Parse YAML; SettingsError gives line and column, also of a key that stands twice."""
    try:
        return yaml.load(text, _StrictLoader)  # noqa: S506 - a safe loader with one more rule
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise SettingsError(f"{where}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"wanted YAML, found {str(error).splitlines()[0]}") from error


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"the configuration cannot be read: {error.strerror}") from error
    if len(data) > _LARGEST_BYTES:
        raise SettingsError(f"wanted a configuration of at most {_LARGEST_BYTES} bytes, found more")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise SettingsError(f"wanted UTF-8, found byte {data[error.start]:#04x} at {error.start}") from error


class _StrictLoader(_SafeLoader):
    """Refuses a key that stands twice, where YAML would silently take the last, and keys that are no text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's
        first: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag not in _TEXT_TAGS:
                raise _key_error(key, f"wanted text as a key, found {self.construct_object(key, deep=True)!r}")
            if key.value in first:
                raise _key_error(key, f"the key {key.value!r} stands twice, first in line {first[key.value]}")
            first[key.value] = key.start_mark.line + 1
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping


def _key_error(key: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, key.start_mark)


def _sentence(message: str, raw: object) -> str:
    """Turn a finding of msgspec into 'key: wanted ..., found ...'."""
    what, _, where = message.partition(" - at ")
    path = _steps(where.strip("`"))
    if match := _UNKNOWN.fullmatch(what):
        return _unknown_key(path, match["key"])
    if match := _MISSING.fullmatch(what):
        return f"{_dotted([*path, match['key']])}: wanted {_wanted([*path, match['key']])}, found nothing"
    found = _found(_at(raw, path))
    return f"{_dotted(path) or 'the file'}: wanted {_wanted(path) or what}, found {found}"


def _steps(where: str) -> list[str | int]:
    """`$.pools[0].name` -> ['pools', 0, 'name']."""
    return [int(m["index"]) if m["index"] else m["key"] for m in _STEP.finditer(where.removeprefix("$"))]


def _dotted(path: Sequence[str | int]) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def _at(raw: Any, path: Sequence[str | int]) -> object:
    for step in path:
        raw = raw[step]
    return raw


def _found(value: object) -> str:
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= _TEXT_SHOWN else text[:_TEXT_SHOWN] + "..."


def _unknown_key(path: Sequence[str | int], key: str) -> str:
    from csi.config_types import known_keys, nearest  # noqa: PLC0415 - memory: needed for errors alone

    known = known_keys(path)
    close = nearest(key, known)
    hint = f"did you mean {close!r}?" if close else f"known are {', '.join(known)}"
    return f"{_dotted([*path, key])}: unknown key; {hint}"


def _wanted(path: Sequence[str | int]) -> str:
    from csi.config_types import wanted  # noqa: PLC0415 - memory: needed for errors alone

    return wanted(path)
