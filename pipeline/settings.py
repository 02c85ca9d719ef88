"""Typed settings: dataclass defaults, overridden by a TOML file, then by --set section.key=value."""

from __future__ import annotations

import difflib
import functools
import json
import tomllib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.common import ROOT
from components.common.errors import InputError, UsageError
from components.common.settings import (
    DataSettings,
    GateSettings,
    HomeSettings,
    InfraSettings,
    PushSettings,
    ServingSettings,
    TrainSettings,
    TransformSettings,
)
from pipeline.beam import BeamSettings
from pipeline.kubeflow_settings import KubeflowSettings


@dataclass(frozen=True)
class Settings:
    """Everything a run depends on. Each component owns its section."""

    data: DataSettings = field(default_factory=DataSettings)
    transform: TransformSettings = field(default_factory=TransformSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    gate: GateSettings = field(default_factory=GateSettings)
    infra: InfraSettings = field(default_factory=InfraSettings)
    serving: ServingSettings = field(default_factory=ServingSettings)
    push: PushSettings = field(default_factory=PushSettings)
    home: HomeSettings = field(default_factory=HomeSettings)
    beam: BeamSettings = field(default_factory=BeamSettings)
    kubeflow: KubeflowSettings = field(default_factory=KubeflowSettings)


SECTIONS: Mapping[str, type[Any]] = typing.get_type_hints(Settings)


def load(config: Path, overrides: Sequence[str] = ()) -> Settings:
    """Read `config` and apply `overrides` ("train.steps=500") on top.

    Raises:
        InputError: the file is missing or not TOML.
        UsageError: an unknown key (the message names the nearest), a value of the wrong type or out of range.
    """
    try:
        values = tomllib.loads(config.read_text())
    except OSError as e:
        raise InputError(f"{config}: cannot be read ({e.strerror})", "The configurations are in configs/.") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise InputError(f"{config}: not valid TOML: {e}") from e
    except RecursionError:
        raise InputError(f"{config}: not valid TOML: nested too deeply") from None

    given = [(f"{section}.{key}" if isinstance(keys, dict) else section, value, str(config))
             for section, keys in values.items()
             for key, value in (keys.items() if isinstance(keys, dict) else [("", keys)])]  # fmt: skip
    given += [(*_parse_override(text), f"--set {text}") for text in overrides]

    sections: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    for path, value, origin in given:
        section, key, kind = _resolve(path, origin)
        sections[section][key] = _convert(value, kind, path, origin)
    return Settings(**{name: kind(**sections[name]) for name, kind in SECTIONS.items()})


@functools.cache
def _known_keys() -> dict[str, Any]:
    return {
        f"{section}.{name}": hint
        for section, kind in SECTIONS.items()
        for name, hint in typing.get_type_hints(kind).items()
    }


def _resolve(path: str, origin: str) -> tuple[str, str, Any]:
    known = _known_keys()
    if path not in known:
        near = difflib.get_close_matches(path, known, n=1, cutoff=0.0)[0]
        raise UsageError(
            f"unknown setting '{path}' ({origin})",
            f"The nearest is '{near}'. All, with their meaning: {ROOT / 'configs' / 'default.toml'}",
        )
    section, key = path.split(".")
    return section, key, known[path]


def _parse_override(text: str) -> tuple[str, Any]:
    path, equals, raw = text.partition("=")
    if not equals:
        raise UsageError(f"--set {text}: expected section.key=value", "For example: --set train.steps=500")
    try:
        return path.strip(), tomllib.loads(f"value = {raw}")["value"]
    except RecursionError:
        raise UsageError(f"--set {path}: nested too deeply") from None
    except tomllib.TOMLDecodeError:
        return path.strip(), raw  # an unquoted string: --set data.source=/data/digits


def _convert(value: Any, kind: Any, path: str, origin: str) -> Any:
    """The value as `kind`; only int to float, list to tuple and a text of names to a tuple are converted."""
    if path == "data.class_names" and kind is not str and isinstance(value, str):
        return tuple(name.strip() for name in value.split(",")) if value.strip() else ()
    if typing.get_origin(kind) is tuple and isinstance(value, list):
        item = typing.get_args(kind)[0]
        return tuple(_convert(v, item, path, origin) for v in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and type(value) is kind:
        return value
    wanted = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}.get(kind, "a list")
    raise UsageError(f"{path} must be {wanted}, not {json.dumps(value, default=str)} ({origin})")
