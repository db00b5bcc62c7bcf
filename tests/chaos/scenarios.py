"""All operations that the matrix disturbs, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.chaos import images, limited, operations, pods, starts

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
    "image-create": images.ImageCreate(),
    "image-expand": images.ImageExpand(),
    "image-stage": images.ImageStage(),
    "image-grow": images.ImageGrow(),
    "image-unstage": images.ImageUnstage(),
    "image-publish": images.ImagePublish(),
    "block-publish": images.BlockPublish(),
    "block-publish-readonly": images.BlockPublishReadonly(),
    "block-expand": images.BlockExpand(),
    "block-unpublish": images.BlockUnpublish(),
    "sweep": starts.Sweep(),
    "init": starts.Init(),
    "erase": starts.Erase(),
    "image-erase": images.ImageErase(),
}

# Of the means whose filesystem holds the size; on a disk that can.
LIMITED: dict[str, Scenario] = {
    "limited-create": limited.Create(),
    "limited-expand": limited.Expand(),
    "limited-delete": limited.Delete(),
    "limited-erase": limited.Erase(),
    "limited-sweep": limited.Sweep(),
}
