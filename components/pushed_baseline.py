"""The baseline where there is no ML Metadata to ask: the last blessed one among the pushed versions."""

# No `from __future__ import annotations` here: TFX reads the annotations of a @component at run time.

import filecmp
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Model
from tfx.utils import path_utils

from components.common import contract
from components.validation.model_signature import Takes, write_takes
from components.versions import manifest

log = logging.getLogger(__name__)


def takes_of(version: Path) -> Takes | None:
    """What a SavedModel can be evaluated on, read from its signature; None if it has no such signature."""
    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString((version / "saved_model.pb").read_bytes())
        signature = saved.meta_graphs[0].signature_def[contract.SERVING_DEFAULT]
        images = [dim.size for dim in signature.inputs[contract.IMAGES].tensor_shape.dim]
        probabilities = [dim.size for dim in signature.outputs[contract.PROBABILITIES].tensor_shape.dim]
    except (OSError, DecodeError, IndexError):
        return None
    if len(images) != 3 or len(probabilities) != 2:
        return None
    return Takes(images[1], images[2], probabilities[1])


def objection(version: Path, wanted: Takes, candidate: Path) -> str | None:
    """Why a pushed version is not the baseline of `candidate` (folders of SavedModels); None if it can be."""
    path = version / manifest.FILE_NAME
    if path.exists():  # without one: whatever was pushed had passed the gate
        try:
            blessed = json.loads(path.read_text()).get("blessed")
        except (OSError, ValueError, AttributeError):
            return "its manifest cannot be read"
        if blessed is not True:
            return "its manifest does not say that it was blessed"
    takes = takes_of(version)
    if takes is None:
        return "its files are gone or incomplete"
    if takes != wanted:
        return f"it takes {takes}, this run has {wanted}"
    return "it is the candidate itself" if _same_weights(version, candidate) else None


def candidates_for_baseline(versions: Path, wanted: Takes, candidate: Path) -> Iterator[Path]:
    """The pushed versions to compare with, the newest first."""
    numbers = [child for child in versions.iterdir() if child.name.isdecimal()] if versions.is_dir() else []
    for version in sorted(numbers, key=lambda child: int(child.name), reverse=True):
        if problem := objection(version, wanted, candidate):
            log.info("version %s is not the baseline: %s", version.name, problem)
        else:
            yield version


def copy_baseline(versions: Path, wanted: Takes, candidate: Path, target: Path) -> Path | None:
    """Copy the baseline's SavedModel into the Model artifact `target`; returns its version's folder.

    Without one, `target` holds contract.ABSENT_FILE, and the entrypoint of the next task leaves the input out: on
    Kubeflow Pipelines a task always has all of its outputs.
    """
    saved_model = Path(path_utils.serving_model_dir(str(target)))
    for version in candidates_for_baseline(versions, wanted, candidate):
        try:
            shutil.copytree(version, saved_model)
        except (OSError, shutil.Error):  # deleted meanwhile, by a push that keeps fewer versions
            log.info("version %s could not be read", version.name)
            shutil.rmtree(saved_model, ignore_errors=True)
            continue
        write_takes(target, wanted)
        return version
    target.mkdir(parents=True, exist_ok=True)
    (target / contract.ABSENT_FILE).write_text(f"No blessed version fits in {versions}\n")
    return None


@component
def PushedBaseline(
    candidate: InputArtifact[Model],
    model: OutputArtifact[Model],
    versions: Parameter[str],
    image_height: Parameter[int],
    image_width: Parameter[int],
    classes: Parameter[int],
) -> None:
    """The latest blessed version in the folder `versions` other than the candidate, as a Model."""
    wanted = Takes(image_height, image_width, classes)
    saved_candidate = Path(path_utils.serving_model_path(candidate.uri))
    found = copy_baseline(Path(versions), wanted, saved_candidate, Path(model.uri))
    log.info("version %s", found.name) if found else log.info("none yet: nothing to compare with")


def _same_weights(version: Path, candidate: Path) -> bool:
    """Whether two SavedModels hold the same variables, byte for byte: comparing a model with itself proves nothing."""
    ours, theirs = ({p.name: p for p in (m / "variables").glob("*.data-*")} for m in (version, candidate))
    if not ours or ours.keys() != theirs.keys():
        return False
    return all(filecmp.cmp(ours[name], theirs[name], shallow=False) for name in ours)
