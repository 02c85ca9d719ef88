"""Determines which versions a model should serve, from its config and the folders in its base path."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from google.protobuf import text_format

from serving.model_server.errors import Code, ServingError, invalid
from serving.protocol import serving_pb2 as pb

log = logging.getLogger(__name__)
PLATFORM: Final = "tensorflow"
MAX_FILES: Final = 10_000  # of a version
MAX_INT64: Final = 2**63 - 1


def parse_config(text: str, file: str) -> list[pb.ModelConfig]:
    """Return the models of a ModelServerConfig in text format; `file` is its name. Raises ServingError."""
    config = pb.ModelServerConfig()
    try:
        text_format.Parse(text, config)
    except text_format.ParseError as e:
        detail = str(e).replace(pb.DESCRIPTOR.package + ".", "tensorflow.serving.")
        log.error("Error parsing text-format tensorflow.serving.ModelServerConfig: %s", detail)
        raise invalid(f"Invalid protobuf file: '{file}'") from None
    if config.WhichOneof("config") == "custom_model_config":
        raise ServingError(Code.UNIMPLEMENTED, "custom_model_config is not supported")
    return list(config.model_config_list.config)


def check(configs: Sequence[pb.ModelConfig]) -> None:
    """Raise ServingError if the model configs are invalid."""
    seen = set()
    for config in configs:
        if config.name in seen:
            raise invalid(f"Illegal to list model {config.name} multiple times in config list")
        seen.add(config.name)
        if not config.base_path.startswith("/") or "\0" in config.base_path:
            raise invalid(
                f"Expected model {config.name} to have an absolute path or URI; got base_path()={config.base_path}"
            )
        if bool(config.model_platform) == bool(config.model_type):
            both, and_ = ("both", "and") if config.model_platform else ("neither", "nor")
            raise invalid(
                f"Illegal setting {both} ModelServerConfig::model_type (deprecated) {and_} "
                f"ModelServerConfig::model_platform, model name is {config.name}"
            )
        if config.model_type == pb.OTHER:
            raise invalid(f"ModelServerConfig::model_type choice {config.model_type} not supported.")
        if config.model_platform and config.model_platform != PLATFORM:
            raise invalid(f"Unknown platform: {config.model_platform}")
        if config.HasField("logging_config"):
            raise invalid("No request-logger-creator provided.")


def check_files(folder: Path) -> None:
    """Raise ServingError if a version's folder contains anything but files and folders: reading a pipe never ends."""
    count = 0
    for root, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = Path(root, name)
            if not path.is_file():
                raise ServingError(Code.FAILED_PRECONDITION, f"{path} is not a regular file")
        count += 1 + len(names)
        if count > MAX_FILES:  # or links in a circle
            raise ServingError(Code.FAILED_PRECONDITION, f"{folder} has more than {MAX_FILES} files")


def aspired(config: pb.ModelConfig) -> dict[int, Path]:
    """Return the versions that the policy chooses in the base path. Raises OSError if the base path is missing."""
    found = {}
    for child in sorted(Path(config.base_path).iterdir()):
        if child.name.isascii() and child.name.isdecimal() and int(child.name) <= MAX_INT64:
            found[int(child.name)] = child
    policy = config.model_version_policy
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        chosen = set(found)
    elif kind == "specific":
        chosen = set(policy.specific.versions) & found.keys()
    else:
        count = policy.latest.num_versions or 1
        chosen = set(sorted(found)[-count:])
    return {number: found[number] for number in chosen}
