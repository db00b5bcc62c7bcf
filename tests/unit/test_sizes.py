"""Sizes as people write them."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from provisioner.sizes import parse_quantity, parse_reserve

UNITS = {"": 1} | {unit: 1000**n for n, unit in enumerate("kMGTP", 1)}
UNITS |= {f"{unit}i": 1024**n for n, unit in enumerate("KMGTP", 1)}

digits = st.text(alphabet="0123456789", min_size=1, max_size=20)
units = st.sampled_from(sorted(UNITS))


@given(digits, units)
def test_a_whole_number_of_units_is_exact(whole: str, unit: str) -> None:
    assert parse_quantity(f"{whole}{unit}") == int(whole) * UNITS[unit]


@given(digits, digits, units)
@example("4", "35", "k")
@example("1", "1", "Ki")
@example("0", "29", "P")
def test_a_decimal_number_of_units_is_exact_but_for_the_last_byte(whole: str, part: str, unit: str) -> None:
    """Rounded down to whole bytes, with no error of floating point before."""
    assert parse_quantity(f"{whole}.{part}{unit}") == int(Fraction(f"{whole}.{part}") * UNITS[unit])


@given(st.integers(0, 2**70))
def test_a_plain_number_is_bytes(size: int) -> None:
    assert parse_quantity(str(size)) == parse_quantity(f"  {size}\n") == size


@given(st.text())
@example("9" * 5000)
@example("9" * 5000 + ".5")
@example("\N{ARABIC-INDIC DIGIT ONE}")
@example("1e3")
@example("-1")
@example(".5Gi")
@example("5.Gi")
@example("1 Gi")
@example("1gi")
@example("1GiB")
@example("NaN")
def test_anything_else_is_a_value_error_that_says_so(text: str) -> None:
    try:
        size = parse_quantity(text)
    except ValueError as error:
        assert "size" in str(error) or "digits" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert size >= 0
        assert text.strip()[0] in "0123456789"


@given(st.integers(0, 100), st.integers(0, 2**62))
def test_a_share_is_never_more_than_the_whole(percent: int, whole_bytes: int) -> None:
    found = parse_reserve(f"{percent}%", whole_bytes)
    assert 0 <= found <= whole_bytes
    assert abs(found - whole_bytes * percent // 100) <= max(1, whole_bytes >> 50)


@given(st.integers(0, 2**62))
def test_a_reserve_may_be_a_size(whole_bytes: int) -> None:
    assert parse_reserve("1.5Gi", whole_bytes) == 3 * 2**29


@pytest.mark.parametrize("text", ["101%", "100.5%", "-5%", "%", "5 %", "5%%", "9" * 400 + "%", "", "five"])
def test_a_share_is_at_most_the_whole(text: str) -> None:
    with pytest.raises(ValueError, match="wanted"):
        parse_reserve(text, 1000)
