"""Pusher: TFX's blessing checks, our way of writing (publish.py)."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path
from typing import Any

from tfx.components.pusher.component import Pusher
from tfx.components.pusher.executor import Executor as TfxExecutor
from tfx.dsl.components.base import executor_spec
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import proto_utils

from components.publish import publish

log = logging.getLogger(__name__)


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
        model = Path(self.GetModelPath(input_dict))
        version = publish(model, Path(destination.filesystem.base_directory), int(time.time()))
        shutil.copytree(model, pushed.uri, dirs_exist_ok=True)  # the artifact, as TFX's own Pusher keeps it
        self._MarkPushed(pushed, pushed_destination=str(version), pushed_version=version.name)
        log.info("version %s", version.name)


class AtomicPusher(Pusher):
    """TFX's Pusher with the executor above; same inputs and outputs."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
