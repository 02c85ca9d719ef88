"""Pusher: TFX's blessing checks, our atomic publishing (publish.py), and a manifest of the version's origin."""

from __future__ import annotations

import functools
import json
import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tfx.components.pusher.component import Pusher as TfxPusher
from tfx.components.pusher.executor import Executor as TfxExecutor
from tfx.dsl.components.base import executor_spec
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.types.channel import BaseChannel
from tfx.utils import path_utils, proto_utils

from components.common import contract
from components.common.class_names import class_names
from components.validation import model_card
from components.versions import manifest, release
from components.versions.publish import prune, publish
from components.versions.weights import weights_sha256

log = logging.getLogger(__name__)
CHECKPOINT_NAME: Final = ("model/", "/.ATTRIBUTES/VARIABLE_VALUE")
RECORDED: Final = ("data", "transform", "train", "gate", "infra")  # sections of the settings that a manifest contains


def saved_weights(saved_model: Path) -> dict[str, npt.NDArray[np.generic]]:
    """The network's variables in a SavedModel by name: "weights/0" float32 [fan_in, fan_out], "biases/0" [fan_out]."""
    reader = tf.train.load_checkpoint(str(saved_model / "variables" / "variables"))
    before, after = CHECKPOINT_NAME
    return {
        key.removeprefix(before).removesuffix(after): reader.get_tensor(key)
        for key in reader.get_variable_to_shape_map()
        if key.startswith(before) and key.endswith(after)
    }


def _documents(
    run_id: str, origin: Mapping[str, Any], slices: Mapping[str, Mapping[str, float]], version: int
) -> dict[str, str]:
    subject = model_card.Subject(
        version=str(version),
        run_id=run_id,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=manifest.git_commit(),
        settings=origin["settings"],
        data_sha256=origin["data_sha256"],
        slices=slices,
        class_names=class_names(origin["settings"], origin["settings"]["data"]["classes"]),
    )
    return model_card.documents(subject)


class Executor(TfxExecutor):
    """Publishes a blessed model; marks an unblessed one as not pushed."""

    def Do(self, input_dict: dict[str, Any], output_dict: dict[str, Any], exec_properties: dict[str, Any]) -> None:
        pushed = artifact_utils.get_single_instance(output_dict[standard_component_specs.PUSHED_MODEL_KEY])
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed)
            log.info("nothing pushed")
            return
        destination = pusher_pb2.PushDestination()
        proto_utils.json_to_proto(exec_properties[standard_component_specs.PUSH_DESTINATION_KEY], destination)
        base = Path(destination.filesystem.base_directory)
        infra = artifact_utils.get_single_uri(input_dict[standard_component_specs.INFRA_BLESSING_KEY])
        model = Path(path_utils.stamped_model_path(infra))  # with its warm-up requests, as the InfraValidator served it
        origin = json.loads(exec_properties[standard_component_specs.CUSTOM_CONFIG_KEY])

        gate, infra_verdict = (
            json.loads(Path(artifact_utils.get_single_uri(input_dict[key]), contract.VERDICT_FILE).read_text())
            for key in (standard_component_specs.MODEL_BLESSING_KEY, standard_component_specs.INFRA_BLESSING_KEY)
        )
        describe = functools.partial(
            manifest.describe,
            run_id=str(self._context.pipeline_run_id),
            settings=origin["settings"],
            data_sha256=origin["data_sha256"],
            gate=gate,
            infra=infra_verdict,
            weights_sha256=weights_sha256(saved_weights(model)),
        )
        documents = functools.partial(_documents, str(self._context.pipeline_run_id), origin, gate["metrics"]["slices"])
        unverified = json.loads(exec_properties.get(contract.UNVERIFIED_VERSIONS, "{}"))
        version = publish(model, base, int(time.time()), describe, unverified.get("tampered", ()), documents)
        shutil.copytree(version, pushed.uri, dirs_exist_ok=True)  # the artifact is a copy, as in TFX's own Pusher
        pushed.set_string_custom_property(contract.MANIFEST_PROPERTY, manifest.sha256(version / manifest.FILE_NAME))
        self._MarkPushed(pushed, pushed_destination=str(version), pushed_version=version.name)
        home = base.parent.parent
        for old in prune(base, origin["keep_versions"], lambda: release.protected_versions(home)):
            log.info("version %d removed: push.keep_versions is %d", old, origin["keep_versions"])
        log.info("version %s", version.name)  # last: the row of the live table shows it


class Pusher(TfxPusher):
    """TFX component: Model, ModelBlessing and InfraBlessing in, PushedModel out.

    Args:
        versions: the folder that a server watches; each pushed version is a folder in it.
        settings: the run's pipeline.settings.Settings; the sections in RECORDED are written to the manifest.
        data_sha256: SHA-256 of each uncompressed IDX file, by role.
    """

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        model: BaseChannel,
        model_blessing: BaseChannel,
        infra_blessing: BaseChannel,
        versions: Path,
        settings: Any,
        data_sha256: Mapping[str, str],
    ) -> None:
        super().__init__(
            model=model,
            model_blessing=model_blessing,
            infra_blessing=infra_blessing,
            push_destination=pusher_pb2.PushDestination(
                filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=str(versions))
            ),
            custom_config={
                "settings": {section: asdict(getattr(settings, section)) for section in RECORDED},
                "data_sha256": dict(data_sha256),
                "keep_versions": settings.push.keep_versions,
            },
        )
