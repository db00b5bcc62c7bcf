"""The one table from errors to gRPC statuses (CSI spec, "Error Scheme").

Callers act on the code: ABORTED, UNAVAILABLE, DEADLINE_EXCEEDED and CANCELLED say 'it may still be going
on', RESOURCE_EXHAUSTED says 'try another node', and everything else says 'it has ended and left nothing'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from grpc import StatusCode

from provisioner import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

CODES: Mapping[type[Exception], StatusCode] = {
    errors.InvalidRequest: StatusCode.INVALID_ARGUMENT,
    errors.NotFound: StatusCode.NOT_FOUND,
    errors.VolumeConflict: StatusCode.ALREADY_EXISTS,
    errors.Precondition: StatusCode.FAILED_PRECONDITION,
    errors.OutOfCapacity: StatusCode.RESOURCE_EXHAUSTED,
    errors.CapacityOutOfRange: StatusCode.OUT_OF_RANGE,
    errors.OperationPending: StatusCode.ABORTED,
    errors.BadToken: StatusCode.ABORTED,
    errors.Unavailable: StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: StatusCode.DEADLINE_EXCEEDED,
    errors.Cancelled: StatusCode.CANCELLED,
    NotImplementedError: StatusCode.UNIMPLEMENTED,
}

# The text travels percent-encoded (up to 3 bytes for 1) in a header block that clients limit to 8 KiB;
# past that they report their own limit instead of our error.
_LONGEST_BYTES = 2048


class ForwardedStatus(Exception):
    """A status that another server of ours gave; it is passed on as it is."""

    def __init__(self, code: StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class Status(NamedTuple):
    """What the caller is told: a code and a message that is never empty. There are no details, ever."""

    code: StatusCode
    message: str


def status_of(error: Exception, method: str, request_id: int) -> Status:
    """Give the status of an error; the texts of unexpected ones stay in the log."""
    if isinstance(error, ForwardedStatus):
        return Status(error.code, _sendable(str(error) or f"{method}: {error.code.name}"))
    code = code_of(type(error))
    if code is StatusCode.INTERNAL:
        return Status(code, f"{method}: unexpected failure; the driver's log tells more under request_id {request_id}")
    if code is StatusCode.UNIMPLEMENTED:
        return Status(code, f"{method}: not offered by this driver; its capabilities tell what is")
    return Status(code, _sendable(str(error) or f"{method}: {type(error).__name__}"))


def code_of(error: type[Exception]) -> StatusCode:
    """Give the code of the nearest class in the table; INTERNAL where there is none."""
    return next((CODES[base] for base in error.__mro__ if base in CODES), StatusCode.INTERNAL)


def _sendable(message: str) -> str:
    """Make a text that gRPC can carry: paths may hold bytes that are no UTF-8."""
    data = message.encode("utf-8", "backslashreplace")
    if len(data) <= _LONGEST_BYTES:
        return data.decode()
    return data[: _LONGEST_BYTES - 3].decode("utf-8", "ignore") + "..."
