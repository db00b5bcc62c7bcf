"""The page about the configuration has each key that the types have, with its default, and no other."""

import re
from pathlib import Path

import pytest
from msgspec import NODEFAULT, Struct
from msgspec.structs import fields

from csi.configuration import Configuration, ControllerSettings
from provisioner.parameters import SCHEMA, ClassParameters
from provisioner.settings import EphemeralSettings, PoolSettings

PAGE = Path(__file__).parents[2] / "docs/reference/configuration.md"
SECTION = re.compile(r"^#+ (.*)$", re.MULTILINE)
ROW = re.compile(r"^\| ((?:`\w+`(?:, )?)+) \|(.*?)\| \S.* \|$", re.MULTILINE)

TYPES: dict[str, type[Struct]] = {
    "Configuration": Configuration,
    "A pool": PoolSettings,
    "The controller": ControllerSettings,
    "Ephemeral volumes": EphemeralSettings,
}


def told(section: str) -> dict[str, str]:
    """Give the keys of a section's table, and the default that it tells of each."""
    _, *parts = SECTION.split(PAGE.read_text())
    text = dict(zip(parts[::2], parts[1::2], strict=True))[section]
    rows = [(re.findall(r"\w+", keys), default.replace("`", "").strip()) for keys, default in ROW.findall(text)]
    return {key: default for keys, default in rows for key in keys}


@pytest.mark.parametrize("section", TYPES)
def test_a_section_tells_of_each_key_and_its_default(section: str) -> None:
    known = {field.encode_name: field.default for field in fields(TYPES[section])}
    found = told(section)
    assert set(found) == set(known)
    for key, default in known.items():
        if isinstance(default, bool | int | float | str) and default != "":
            plain = str(default).lower() if isinstance(default, bool) else f"{default}"
            assert found[key] in (plain, plain.removesuffix(".0")), key
        elif default is NODEFAULT:
            assert found[key] in ("", "none", "[/var/lib/kubelet]"), f"{key}: it has no default, or a list"


# What '' and 0 stand for, where another thing decides.
DEFAULTS_IN_WORDS = {
    "pool": "the first pool",
    "enforce": "that of the pool",
    "fsType": "that of the pool, or ext4",
    "inodes": "by size",
}


def test_each_class_parameter_is_told_with_its_default() -> None:
    found, defaults = told("Class parameters"), ClassParameters()
    assert set(found) == set(SCHEMA)
    for key, parameter in SCHEMA.items():
        default = getattr(defaults, snake_case(key))
        if key in DEFAULTS_IN_WORDS:
            assert not default, f"{key}: it has a default of its own"
            assert found[key] == DEFAULTS_IN_WORDS[key]
        elif isinstance(default, bool):
            assert found[key] == str(default).lower(), key
        else:
            assert {parameter.value(text) for text in found[key].split(", ")} == {default}, key


def snake_case(key: str) -> str:
    return re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", key)
