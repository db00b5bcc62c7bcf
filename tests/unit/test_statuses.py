"""The one table of errors: complete, and as design and spec have it."""

from __future__ import annotations

import importlib
import pkgutil

import pytest
from grpc import StatusCode

import provisioner
from csi.wire.statuses import CODES, code_of, status_of
from provisioner import errors
from provisioner.errors import ProvisionerError

EXPECTED = {
    errors.InvalidRequest: StatusCode.INVALID_ARGUMENT,
    errors.NotFound: StatusCode.NOT_FOUND,
    errors.VolumeNotFound: StatusCode.NOT_FOUND,
    errors.TargetNotFound: StatusCode.NOT_FOUND,
    errors.VolumeConflict: StatusCode.ALREADY_EXISTS,
    errors.Precondition: StatusCode.FAILED_PRECONDITION,
    errors.VolumeInUse: StatusCode.FAILED_PRECONDITION,
    errors.Unsupported: StatusCode.FAILED_PRECONDITION,
    errors.TargetOccupied: StatusCode.FAILED_PRECONDITION,
    errors.OverLimit: StatusCode.FAILED_PRECONDITION,
    errors.OutOfCapacity: StatusCode.RESOURCE_EXHAUSTED,
    errors.NodeNotInTopology: StatusCode.RESOURCE_EXHAUSTED,
    errors.NodeUnsuited: StatusCode.RESOURCE_EXHAUSTED,
    errors.CapacityOutOfRange: StatusCode.OUT_OF_RANGE,
    errors.OperationPending: StatusCode.ABORTED,
    errors.BadToken: StatusCode.ABORTED,
    errors.Unavailable: StatusCode.UNAVAILABLE,
    errors.PoolUnavailable: StatusCode.UNAVAILABLE,
    errors.NodeUnavailable: StatusCode.UNAVAILABLE,
    errors.VolumeQuarantined: StatusCode.UNAVAILABLE,
    errors.NotDurable: StatusCode.UNAVAILABLE,
    errors.NotReady: StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: StatusCode.DEADLINE_EXCEEDED,
    errors.Cancelled: StatusCode.CANCELLED,
}


def tree(root: type[Exception]) -> set[type[Exception]]:
    return {root}.union(*map(tree, root.__subclasses__()))


def test_no_error_of_the_domain_is_unmapped() -> None:
    """Every module is imported first: a class of the tree may stand outside provisioner.errors."""
    for module in pkgutil.walk_packages(provisioner.__path__, "provisioner."):
        importlib.import_module(module.name)
    unmapped = {error for error in tree(ProvisionerError) if code_of(error) is StatusCode.INTERNAL}
    assert unmapped == {ProvisionerError}


def test_every_error_of_the_tree_has_its_code() -> None:
    in_errors = {error for error in tree(ProvisionerError) if error.__module__ == errors.__name__}
    assert in_errors - {ProvisionerError} == set(EXPECTED)
    assert {error: code_of(error) for error in EXPECTED} == EXPECTED


def test_the_table_has_no_row_twice() -> None:
    """A row for a class whose base has the same code could only drift."""
    assert not [error for error, code in CODES.items() if any(CODES.get(base) is code for base in error.__mro__[1:])]


@pytest.mark.parametrize("error", [errors.PoolUnavailable("pool x is not mounted"), errors.Cancelled("gone")])
def test_the_message_is_the_domain_s(error: ProvisionerError) -> None:
    assert status_of(error, "M", 1).message == str(error)


@pytest.mark.parametrize("error", [OSError(5, "secret path"), ValueError("secret"), MemoryError(), KeyError("secret")])
def test_unexpected_errors_are_internal_and_say_nothing_of_their_insides(error: Exception) -> None:
    status = status_of(error, "CreateVolume", 17)
    assert status.code is StatusCode.INTERNAL
    assert "secret" not in status.message
    assert "request_id 17" in status.message


@pytest.mark.parametrize("error", sorted(EXPECTED, key=str))
def test_no_message_is_empty(error: type[ProvisionerError]) -> None:
    assert status_of(error(), "CreateVolume", 1).message == f"CreateVolume: {error.__name__}"


def test_what_is_not_offered_is_unimplemented() -> None:
    status = status_of(NotImplementedError(), "CreateSnapshot", 1)
    assert status.code is StatusCode.UNIMPLEMENTED
    assert status.message.startswith("CreateSnapshot: not offered")


@pytest.mark.parametrize("letter", ["x", "é", "😀", "\udcff"])
def test_messages_fit_into_the_headers_that_carry_them(letter: str) -> None:
    message = status_of(errors.InvalidRequest(letter * 100_000), "M", 1).message
    assert len(message.encode()) <= 2048
    assert message.endswith("...")
