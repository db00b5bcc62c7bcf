"""Which size a range of sizes gives."""

from __future__ import annotations

from provisioner.errors import CapacityOutOfRange
from provisioner.model import CapacityRange
from provisioner.records import Record


def is_large_enough(record: Record, wanted: CapacityRange) -> bool:
    """Tell whether a volume satisfies a range as it is; CapacityOutOfRange where no growth could."""
    check_range(wanted)
    if wanted.limit_bytes and wanted.limit_bytes < record.capacity_bytes:
        raise CapacityOutOfRange(
            f"volume {record.volume_id} has {record.capacity_bytes} bytes, wanted at most {wanted.limit_bytes}; "
            "volumes never shrink"
        )
    return wanted.required_bytes <= record.capacity_bytes


def check_range(wanted: CapacityRange) -> None:
    """Raise CapacityOutOfRange where no size is in the range."""
    if wanted.limit_bytes and wanted.required_bytes > wanted.limit_bytes:
        raise CapacityOutOfRange(
            f"required_bytes {wanted.required_bytes} is more than limit_bytes {wanted.limit_bytes}; no size is both"
        )


def size_for(wanted: CapacityRange, default_bytes: int, *, least_bytes: int = 1, unit_bytes: int = 1) -> int:
    """Choose the size of a new volume: what is required, else the default, as far as the limit lets it.

    It is a multiple of `unit_bytes`, and not below `least_bytes`.
    """
    check_range(wanted)
    size = wanted.required_bytes or min(default_bytes, wanted.limit_bytes or default_bytes)
    size = -(-max(size, least_bytes) // unit_bytes) * unit_bytes
    if not wanted.limit_bytes or size <= wanted.limit_bytes:
        return size
    highest = wanted.limit_bytes // unit_bytes * unit_bytes
    if highest < max(wanted.required_bytes, least_bytes):
        raise CapacityOutOfRange(
            f"wanted {wanted.required_bytes} to {wanted.limit_bytes} bytes, but such a volume has at least "
            f"{least_bytes} bytes, and a multiple of {unit_bytes}; allow more"
        )
    return highest
