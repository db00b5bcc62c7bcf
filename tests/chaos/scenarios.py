"""All operations that the matrix disturbs, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.chaos import operations, pods, starts

if TYPE_CHECKING:
    from tests.chaos.scenario import Scenario

SCENARIOS: dict[str, Scenario] = {
    "create": operations.Create(),
    "expand": operations.Expand(),
    "delete": operations.Delete(),
    "stage": operations.Stage(),
    "unstage": operations.Unstage(),
    "publish": operations.Publish(),
    "publish-readonly": operations.PublishReadonly(),
    "unpublish": operations.Unpublish(),
    "unpublish-orphan": operations.UnpublishOrphan(),
    "publish-ephemeral": pods.PublishEphemeral(),
    "forget-ephemeral": pods.ForgetEphemeral(),
    "unpublish-ephemeral": pods.UnpublishEphemeral(),
    "sweep": starts.Sweep(),
    "init": starts.Init(),
    "erase": starts.Erase(),
}
