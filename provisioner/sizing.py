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


def size_for(wanted: CapacityRange, default_bytes: int) -> int:
    """Choose the size of a new volume: what is required, else the default, as far as the limit lets it."""
    check_range(wanted)
    if wanted.required_bytes:
        return wanted.required_bytes
    return min(default_bytes, wanted.limit_bytes) if wanted.limit_bytes else default_bytes
