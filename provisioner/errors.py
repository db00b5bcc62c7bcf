"""Everything that can go wrong with a volume, as one tree.

    ProvisionerError
    +-- InvalidRequest              the request itself is wrong; no retry heals it
    +-- NotFound
    |   +-- VolumeNotFound
    |   +-- TargetNotFound          a path that should be (or lead to) a publication
    +-- VolumeConflict              same name or target, other size or parameters
    +-- Precondition
    |   +-- VolumeInUse
    |   +-- Unsupported             well formed, but this volume cannot do it
    |   +-- TargetOccupied          something that is not ours stands at the target
    |   +-- OverLimit               an administrator's limit forbids it
    +-- OutOfCapacity
    |   +-- NodeNotInTopology
    |   +-- NodeUnsuited            a node that a new volume should not wait for
    +-- CapacityOutOfRange
    +-- OperationPending
    +-- BadToken                    a starting_token that we never gave
    +-- Unavailable                 nothing is known to be wrong with the request; retry
    |   +-- PoolUnavailable
    |   +-- NodeUnavailable         a node of the cluster does not answer, or not as it should
    |   +-- VolumeQuarantined       its record cannot be read; the data is left alone
    |   +-- NotDurable              committed, but not yet safe from a power cut
    |   +-- NotReady                the first scan has not ended
    +-- DeadlineExceeded
    +-- Cancelled

Below the domain there are only OSError and CommandError. Every message says what was wanted, what was
found, and what to do. `csi.wire.statuses` gives each class its gRPC status.
"""


class ProvisionerError(Exception):
    """Root of the tree; never raised itself."""


class InvalidRequest(ProvisionerError):
    """A field is missing, malformed, or asks for what does not exist."""


class NotFound(ProvisionerError):
    """What the request names is not there."""


class VolumeNotFound(NotFound):
    """No volume has this id."""


class TargetNotFound(NotFound):
    """The path is not there, or is no publication of the volume."""


class VolumeConflict(ProvisionerError):
    """It exists already and differs from what is asked."""


class Precondition(ProvisionerError):
    """The request is right, but the state of the volume or target forbids it."""


class VolumeInUse(Precondition):
    """The volume is published, or a process holds its mount."""


class Unsupported(Precondition):
    """This volume cannot do what is asked."""


class TargetOccupied(Precondition):
    """Something that is not ours stands at the target; it is left alone."""


class OverLimit(Precondition):
    """It would be more than the administrator allows."""


class OutOfCapacity(ProvisionerError):
    """The pool has no room; another node may have."""


class NodeNotInTopology(OutOfCapacity):
    """The request's topology leaves this node out."""


class NodeUnsuited(OutOfCapacity):
    """The node is gone, was not heard of for long, lacks the pool, or cannot be believed; another may do."""


class CapacityOutOfRange(ProvisionerError):
    """No size satisfies both required_bytes and limit_bytes."""


class OperationPending(ProvisionerError):
    """Another call for the same volume is still running."""


class BadToken(ProvisionerError):
    """The starting_token is none that this driver gave."""


class Unavailable(ProvisionerError):
    """The outcome is open; the same call again is the right answer."""


class PoolUnavailable(Unavailable):
    """The pool is missing, not mounted, read-only, or another one."""


class NodeUnavailable(Unavailable):
    """The node that has the volume, or shall have it, does not answer, or not as it should."""


class VolumeQuarantined(Unavailable):
    """The volume's record is broken; nothing is done to it until an administrator looks."""


class NotDurable(Unavailable):
    """The change is visible but not yet known to survive a power cut."""


class NotReady(Unavailable):
    """The driver is still reading its pools."""


class DeadlineExceeded(ProvisionerError):
    """The caller's deadline passed; half-done work was undone."""


class Cancelled(ProvisionerError):
    """The caller went away; half-done work was undone."""
