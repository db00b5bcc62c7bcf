"""What each key of the configuration may be, in words; read from the types of `Configuration`."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from msgspec import inspect

from csi.configuration import Configuration

if TYPE_CHECKING:
    from collections.abc import Sequence


def wanted(path: Sequence[str | int]) -> str:
    """Say what the key at `path` may be."""
    return _words(_type_at(path))


def known_keys(path: Sequence[str | int]) -> list[str]:
    """Give the keys of the mapping at `path`."""
    found = _type_at(path)
    return [field.encode_name for field in found.fields] if isinstance(found, inspect.StructType) else []


def nearest(key: str, known: Sequence[str]) -> str | None:
    """Give the known key that was probably meant: a misspelling, or other letter case or dashes."""
    plain = {_plain(name): name for name in known}
    close = get_close_matches(_plain(key), plain, n=1)
    return plain[close[0]] if close else None


def _plain(key: str) -> str:
    return key.lower().replace("_", "").replace("-", "")


def _type_at(path: Sequence[str | int]) -> inspect.Type:
    found = inspect.type_info(Configuration)
    for step in path:
        found = _below(found, step)
    return found


def _below(found: inspect.Type, step: str | int) -> inspect.Type:
    if isinstance(found, inspect.UnionType):  # 'or nothing': look into what is left
        found = next(t for t in found.types if not isinstance(t, inspect.NoneType))
    if isinstance(found, inspect.ListType):
        return found.item_type
    if isinstance(found, inspect.StructType):
        return next((f.type for f in found.fields if f.encode_name == step), inspect.AnyType())
    return inspect.AnyType()


def _words(found: inspect.Type) -> str:
    words = ""
    match found:
        case inspect.UnionType():
            words = " or ".join(_words(t) for t in found.types if not isinstance(t, inspect.NoneType))
        case inspect.LiteralType():
            words = " or ".join(repr(value) for value in found.values)
        case inspect.StrType():
            words = f"text of the form {found.pattern}" if found.pattern else "text"
        case inspect.FloatType() | inspect.IntType():
            words = _number(found)
        case inspect.ListType():
            words = f"a list of {found.min_length} or more" if found.min_length else "a list"
        case inspect.BoolType():
            words = "true or false"
        case inspect.StructType():
            words = f"a mapping with the keys {', '.join(field.encode_name for field in found.fields)}"
    return words


def _number(found: inspect.FloatType | inspect.IntType) -> str:
    kind = "a number" if isinstance(found, inspect.FloatType) else "a whole number"
    limits = ((">", found.gt), (">=", found.ge), ("<", found.lt), ("<=", found.le))
    said = [f"{sign} {limit:g}" for sign, limit in limits if limit is not None]
    return " ".join([kind, " and ".join(said)]).strip()
