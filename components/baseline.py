"""Baseline: the pushed version that a new model is compared with."""

from __future__ import annotations

import filecmp
import json
import logging
import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.dsl.components.base import base_driver as dsl_base_driver
from tfx.orchestration.portable import base_driver, data_types
from tfx.proto.orchestration import driver_output_pb2
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.types import standard_component_specs as keys
from tfx.types.channel import BaseChannel, OutputChannel
from tfx.utils import path_utils

from components.common import contract
from components.common.errors import InputError
from components.validation import model_signature
from components.versions import manifest, publish

log = logging.getLogger(__name__)
CANDIDATE: Final = "candidate"
VERSIONS: Final = "versions"
CHOICE: Final = "choice"  # property of the execution and of the output artifact


def objection(version: Path, candidate: Path) -> str | None:
    """Why `version` cannot be the baseline of `candidate`, both SavedModel folders; None if it can."""
    try:
        manifest.verify(version)
        theirs, ours = model_signature.read(version), model_signature.read(candidate)
        if theirs is None or theirs != ours:
            return f"its signature has {theirs}, the candidate's has {ours}"
        # A comparison of a model with itself proves nothing.
        return "it has the weights of the candidate" if same_weights(version, candidate) else None
    except InputError as e:
        return e.problem
    except (OSError, AttributeError, TypeError) as e:  # deleted meanwhile, unreadable, or not a manifest's types
        return f"it cannot be verified ({e})"


def same_weights(one: Path, other: Path) -> bool:
    """Whether two SavedModels have the same variables, byte for byte. Raises OSError."""
    mine, theirs = ({p.name: p for p in (m / "variables").glob("*.data-*")} for m in (one, other))
    if not mine or mine.keys() != theirs.keys():
        return False
    return all(filecmp.cmp(mine[name], theirs[name], shallow=False) for name in mine)


def choices(versions: Path, candidate: Path, tampered: Collection[int] = ()) -> Iterator[str]:
    """Number and weights hash of each version that `candidate` can be compared with, the newest first.

    Args:
        tampered: versions that differ from what was pushed, although their manifest may match their files.
    """
    for number in reversed(publish.versions(versions)):
        version = versions / str(number)
        problem = "it was tampered with" if number in tampered else objection(version, candidate)
        if problem is None:
            with suppress(InputError):  # deleted meanwhile
                yield f"{number} {manifest.read(version).weights_sha256}"
        else:
            log.info("version %d is not the baseline: %s", number, problem)


def copy(version: Path, target: Path) -> bool:
    """Copy a version's SavedModel into the Model artifact `target`; False if the version is gone."""
    saved_model = Path(path_utils.serving_model_dir(str(target)))
    try:
        shutil.copytree(version, saved_model)
    except (OSError, shutil.Error):  # deleted meanwhile by a push elsewhere that keeps fewer versions
        log.warning("version %s could not be read", version.name)
        shutil.rmtree(saved_model, ignore_errors=True)
        return False
    return True


# The runner requires the first base class, the component the second.
class Driver(base_driver.BaseDriver, dsl_base_driver.BaseDriver):
    """Adds the baseline to the cache key, so that the node runs again when the baseline changes.

    Only TFX's local orchestrator runs drivers. On Kubeflow Pipelines this node is never cached.
    """

    def run(self, execution_info: data_types.ExecutionInfo) -> driver_output_pb2.DriverOutput:
        candidate = artifact_utils.get_single_instance(execution_info.input_dict[CANDIDATE])
        properties = execution_info.exec_properties
        versions, model = Path(properties[VERSIONS]), _saved_model(candidate)
        unverified = json.loads(properties.get(contract.UNVERIFIED_VERSIONS) or "{}")
        choice = next(choices(versions, model, unverified.get("tampered", ())), "")
        if not choice and _is_pushed(versions, model):
            choice = self._choice_before(candidate.id)
        output = driver_output_pb2.DriverOutput()
        output.exec_properties[CHOICE].string_value = choice
        output.exec_properties[contract.UNVERIFIED_VERSIONS].string_value = ""  # only the choice is in the key
        return output

    def _choice_before(self, candidate_id: int) -> str:
        """The baseline that this candidate was compared with before its push, which may have deleted that version."""
        with self._mlmd_connection as handle:
            store = handle.store
            readers = {event.execution_id for event in store.get_events_by_artifact_ids([candidate_id])}
            events = store.get_events_by_execution_ids(readers) if readers else []
            produced = store.get_artifacts_by_id({event.artifact_id for event in events})
            chosen = [a for a in produced if CHOICE in a.custom_properties]
        return max(chosen, key=lambda a: a.id).custom_properties[CHOICE].string_value if chosen else ""


class Executor(base_executor.BaseExecutor):
    """Copies the baseline, so that a later push cannot delete it during the evaluation.

    Without a baseline the artifact holds contract.ABSENT_FILE, because a node always has all of its outputs.
    """

    def Do(self, input_dict: dict[str, Any], output_dict: dict[str, Any], exec_properties: dict[str, Any]) -> None:
        candidate = artifact_utils.get_single_instance(input_dict[CANDIDATE])
        model = artifact_utils.get_single_instance(output_dict[keys.MODEL_KEY])
        versions, target = Path(exec_properties[VERSIONS]), Path(model.uri)
        chosen = exec_properties.get(CHOICE)  # by the driver, if there is one
        possible = choices(versions, _saved_model(candidate)) if chosen is None else filter(None, [chosen])
        choice = next((one for one in possible if copy(versions / one.split()[0], target)), "")
        if not choice:
            target.mkdir(parents=True, exist_ok=True)
            (target / contract.ABSENT_FILE).write_text(f"No blessed version in {versions} can be the baseline\n")
        model.set_string_custom_property(CHOICE, choice)
        log.info("version %s", choice.split()[0]) if choice else log.info("none: no earlier version to compare with")


class _Spec(component_spec.ComponentSpec):
    INPUTS = {CANDIDATE: component_spec.ChannelParameter(type=standard_artifacts.Model)}
    OUTPUTS = {keys.MODEL_KEY: component_spec.ChannelParameter(type=standard_artifacts.Model)}
    PARAMETERS = {VERSIONS: component_spec.ExecutionParameter(type=str)}


class Baseline(base_component.BaseComponent):
    """TFX component: the newest blessed version in the folder `versions` that differs from the candidate, as a Model.

    A version qualifies if its manifest records a blessing and matches its files, and if it has the candidate's image
    size and number of classes.
    """

    SPEC_CLASS = _Spec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(self, candidate: BaseChannel, versions: Path) -> None:
        model = OutputChannel(standard_artifacts.Model, self, keys.MODEL_KEY)
        super().__init__(spec=_Spec(candidate=candidate, model=model, versions=str(versions)))


def _saved_model(model: Any) -> Path:
    return Path(path_utils.serving_model_path(model.uri))


def _is_pushed(versions: Path, candidate: Path) -> bool:
    with suppress(OSError):  # a version that cannot be read is not known to be the candidate
        return any(same_weights(versions / str(number), candidate) for number in publish.versions(versions))
    return False
