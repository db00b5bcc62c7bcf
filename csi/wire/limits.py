"""The size limits of request fields (CSI spec, "Size Limits"), read off the message descriptors.

    string                 128 bytes
    node_id                256 bytes
    ..._path               4095 bytes, which is the system's maximum; no NUL
    map<string, string>    4 KiB, keys and values together; keys of secrets have a form of their own
    mount_flags            4 KiB together

Checks are built once a message type; a request then costs a few microseconds, for only the fields that it
holds are looked at. No value is ever part of a message: it may be long, or secret.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor

from csi.pb import csi_pb2
from provisioner.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

    Check = Callable[[Any], None]

STRING_BYTES = 128
NODE_ID_BYTES = 256
COLLECTION_BYTES = 4096
PATH_BYTES = 4095  # PATH_MAX of linux/limits.h counts the final NUL

_SECRET: Any = csi_pb2.csi_secret  # protoc's type stubs do not know it as an extension
_SECRET_KEY = re.compile(r"[A-Za-z0-9._-]+")


class Limits:
    """The limits of one message type, and of the messages in it."""

    __slots__ = ("_checks", "_checks_if_small")

    def __init__(self, descriptor: Descriptor) -> None:
        self._checks = _checks_of(descriptor, "", small=False)
        self._checks_if_small = _checks_of(descriptor, "", small=True)

    def check(self, message: Message, size_bytes: int) -> None:
        """Raise InvalidRequest naming the field, the limit and the size found.

        size_bytes: of the encoded message. Up to PATH_BYTES no path and no collection in it can be too long.
        """
        (self._checks_if_small if size_bytes <= PATH_BYTES else self._checks)(message)


def _checks_of(descriptor: Descriptor, prefix: str, *, small: bool) -> Check:
    found = {field.number: _check_of(field, prefix + field.name, small=small) for field in descriptor.fields}
    checks = {number: check for number, check in found.items() if check is not None}

    def check_message(message: Message) -> None:
        for field, value in message.ListFields():
            check = checks.get(field.number)
            if check is not None:
                check(value)

    return check_message


def _check_of(field: FieldDescriptor, name: str, *, small: bool) -> Check | None:
    if field.type == FieldDescriptor.TYPE_STRING:
        if field.name == "mount_flags":
            return None if small else _together(name, _strings_bytes)
        check = _path(name) if field.name.endswith("_path") else _string(field, name)
    elif field.message_type is None:
        return None
    elif field.message_type.GetOptions().map_entry:
        sizes = None if small else _together(name, _map_bytes)
        return _secrets(name, sizes) if field.GetOptions().Extensions[_SECRET] else sizes
    else:
        check = _checks_of(field.message_type, f"{name}.", small=small)
    return _each(check) if field.is_repeated else check


def _string(field: FieldDescriptor, name: str) -> Check:
    limit = NODE_ID_BYTES if field.name == "node_id" else STRING_BYTES

    def check(value: str) -> None:
        size = len(value.encode())
        if size > limit:
            raise InvalidRequest(f"{name}: wanted at most {limit} bytes, found {size}")

    return check


def _path(name: str) -> Check:
    def check(value: str) -> None:
        size = len(value.encode())
        if size > PATH_BYTES:
            raise InvalidRequest(f"{name}: wanted a path of at most {PATH_BYTES} bytes, found {size}")
        if "\0" in value:
            raise InvalidRequest(f"{name}: wanted a path, found a NUL character in it")

    return check


def _together(name: str, bytes_of: Callable[[Any], int]) -> Check:
    def check(values: Any) -> None:
        size = bytes_of(values)
        if size > COLLECTION_BYTES:
            raise InvalidRequest(f"{name}: wanted at most {COLLECTION_BYTES} bytes in all, found {size}")

    return check


def _strings_bytes(values: Iterable[str]) -> int:
    return sum(len(value.encode()) for value in values)


def _map_bytes(values: Mapping[str, str]) -> int:
    return _strings_bytes(values.keys()) + _strings_bytes(values.values())


def _secrets(name: str, check_size: Check | None) -> Check:
    def check(values: Mapping[str, str]) -> None:
        if check_size is not None:
            check_size(values)
        if not all(map(_SECRET_KEY.fullmatch, values)):
            raise InvalidRequest(f"{name}: wanted keys of letters, digits, '-', '_' and '.', found another one")

    return check


def _each(check: Check) -> Check:
    def check_each(values: Iterable[Any]) -> None:
        for value in values:
            check(value)

    return check_each
