"""Pusher that publishes a version in one rename: TensorFlow Serving sees it whole or not at all."""

from __future__ import annotations

import fcntl
import filecmp
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tfx.components.pusher.component import Pusher
from tfx.components.pusher.executor import Executor as TfxExecutor
from tfx.dsl.components.base import executor_spec
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import proto_utils

from components.errors import InputError

TEMPORARY: Final = ".pushing-"  # TensorFlow Serving ignores folders whose names are no numbers


def publish(model: Path, base: Path, now_s: int) -> Path:
    """Copy the SavedModel `model` to `base/<version>` so that the version appears complete, in one rename.

    Args:
        model: folder of a SavedModel.
        base: the folder that TensorFlow Serving watches; created if missing.
        now_s: seconds since the epoch, the version unless a later one exists already.

    Returns:
        The folder of the new version; its number is above every other in `base`.

    Raises:
        InputError: the copy does not equal the original.
    """
    base.mkdir(parents=True, exist_ok=True)
    with _locked(base):
        for stale in base.glob(f"{TEMPORARY}*"):  # of a killed push: we hold the lock
            shutil.rmtree(stale)
        taken = [int(child.name) for child in base.iterdir() if child.name.isdecimal()]
        version = max([now_s, *(number + 1 for number in taken)])
        temporary = base / f"{TEMPORARY}{version}"
        try:
            shutil.copytree(model, temporary)
            for file in _files(temporary):
                if not filecmp.cmp(file, model / file.relative_to(temporary), shallow=False):
                    raise InputError(f"{file} differs from its original after copying", "Check the disk.")
                _sync(file)
            _sync(temporary)
            target = base / str(version)
            temporary.rename(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _sync(base)
    return target


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(base: Path) -> Iterator[None]:
    with open(base / ".push.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Executor(TfxExecutor):
    """TFX's blessing checks, our way of writing."""

    def Do(self, input_dict: dict[str, Any], output_dict: dict[str, Any], exec_properties: dict[str, Any]) -> None:
        pushed = artifact_utils.get_single_instance(output_dict[standard_component_specs.PUSHED_MODEL_KEY])
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed)
            return
        destination = pusher_pb2.PushDestination()
        proto_utils.json_to_proto(exec_properties[standard_component_specs.PUSH_DESTINATION_KEY], destination)
        model = Path(self.GetModelPath(input_dict))
        version = publish(model, Path(destination.filesystem.base_directory), int(time.time()))
        shutil.copytree(model, pushed.uri, dirs_exist_ok=True)  # the artifact, as TFX's own Pusher keeps it
        self._MarkPushed(pushed, pushed_destination=str(version), pushed_version=version.name)


class AtomicPusher(Pusher):
    """TFX's Pusher with the executor above; same inputs and outputs."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
