"""Sizes as people write them: Kubernetes quantities and shares of a filesystem."""

from __future__ import annotations

import re
from fractions import Fraction

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_UNITS |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}
_QUANTITY = re.compile(r"([0-9]+)(?:\.([0-9]+))?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P|)")
_SHARE = re.compile(r"([0-9]+(?:\.[0-9]+)?)%")

DEFAULT_SIZE_BYTES = 2**30


def parse_quantity(text: str) -> int:
    """Give the bytes of a Kubernetes quantity ('10Gi', '500M', '1024'); ValueError if it is none."""
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"wanted a size such as '10Gi', '500M' or '1024', found {text!r}")
    whole, part, unit = match.groups(default="")
    size: int = int(whole + part) * _UNITS[unit] // 10 ** len(part)  # a float would be bytes off from 2.2Pi on
    return size


def parse_reserve(text: str, whole_bytes: int) -> int:
    """Give the bytes of a reserve: a share of `whole_bytes` ('5%') or a quantity; ValueError if neither."""
    match = _SHARE.fullmatch(text.strip())
    if match is None:
        return parse_quantity(text)
    share = Fraction(match[1])  # a float would be bytes off from 8Pi on
    if share > 100:  # noqa: PLR2004 - per cent
        raise ValueError(f"wanted a share of at most 100%, found {text!r}")
    return int(whole_bytes * share / 100)
