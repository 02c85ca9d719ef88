"""Which model a candidate is compared with."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from tfx.components.evaluator import constants
from tfx.dsl.components.common.resolver import ResolverStrategy
from tfx.types.artifact import ArtifactState

from components.validation.model_signature import Takes, unfit

log = logging.getLogger(__name__)


class LatestBlessedBaseline(ResolverStrategy):
    """The latest blessed model other than the candidate itself that takes the same images and classes.

    TFX's LatestBlessedModelStrategy would, on a rerun, answer the candidate of the run before: comparing a model
    with itself proves nothing, and the changed input would evaluate and push the same model again.

    Input channels: `candidate` (the Trainer's model), `model` (all Models) and `model_blessing` (all ModelBlessings).
    """

    def __init__(self, image_height: int, image_width: int, classes: int) -> None:
        self._wanted = Takes(image_height, image_width, classes)

    def resolve_artifacts(self, store: Any, input_dict: dict[str, list[Any]]) -> dict[str, list[Any]]:
        candidate = max((model.id for model in input_dict["candidate"]), default=None)
        blessings = {
            blessing.get_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY): blessing
            for blessing in input_dict["model_blessing"]
            if blessing.get_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY) == constants.BLESSED_VALUE
        }
        for model in sorted(input_dict["model"], key=lambda model: model.id, reverse=True):
            if model.id not in blessings or model.id == candidate or model.state == ArtifactState.DELETED:
                continue
            if problem := unfit(Path(model.uri), self._wanted):
                log.info("blessed model %d is not the baseline: %s", model.id, problem)
                continue
            return {"candidate": input_dict["candidate"], "model": [model], "model_blessing": [blessings[model.id]]}
        return {"candidate": input_dict["candidate"], "model": [], "model_blessing": []}
