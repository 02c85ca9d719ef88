"""What the cached result of each node depends on, in words that a user can compare. No TensorFlow, no TFX.

TFX's own cache key is a hash of a node's parameters and inputs. One of the parameters is the text of this key, so the
cache follows it, and a later run can say which part of it is different.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from components.common import ROOT
from components.common.home import Home
from components.common.settings import DataSettings
from components.common.source_key import file_hashes
from pipeline.settings import Settings

PARAMETER: Final = "cache_key"
SHOWN: Final = 3  # differences in one reason
_EXAMPLES: Final = tuple(f"data.{name}" for name in DataSettings().of_examples())
_UNSET: Final = object()

# Settings of each node, in the order of the DAG: keys, or whole sections.
USED: Final[Mapping[str, tuple[str, ...]]] = {
    "ExampleGen": ("data.source", *_EXAMPLES, "beam"),
    "Schema": ("data.classes", "data.min_mean_intensity", "data.max_mean_intensity"),
    "StatisticsGen": ("beam",),
    "ExampleValidator": ("data.on_drift",),
    "Transform": ("data.image_height", "data.image_width", "transform", "beam"),
    "Trainer": (*_EXAMPLES, "train"),
    "Baseline": (),
    "Evaluator": ("data.class_names", "gate", "beam"),
    "InfraValidator": ("infra", "serving.backend"),
    "Pusher": ("data", "transform", "train", "gate", "infra", "push.keep_versions"),  # the manifest records them
}
MODULES: Final[Mapping[str, tuple[str, ...]]] = {
    "ExampleGen": ("components.example_gen",),
    "Schema": ("components.schema",),
    "StatisticsGen": (),  # TFX's own
    "ExampleValidator": ("components.example_validator",),
    "Transform": ("components.transform",),
    "Trainer": ("components.trainer",),
    "Baseline": ("components.baseline",),
    "Evaluator": ("components.evaluator",),
    "InfraValidator": ("components.infra_validator",),
    "Pusher": ("components.pusher",),
}
READS_DATA: Final = ("ExampleGen", "Pusher")  # their key has the hashes of the IDX files


@dataclass(frozen=True)
class NodeKey:
    """All that a node's result depends on, besides its inputs.

    Attributes:
        home: the folder of the home: artifacts are recorded with absolute paths.
        settings: by "section.key".
        data: SHA-256 of each uncompressed IDX file, by role.
        sources: the first digits of the SHA-256 of each source file, by path.
    """

    home: str
    settings: dict[str, Any]
    data: dict[str, str]
    sources: dict[str, str]

    @property
    def text(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))


def node_keys(settings: Settings, home: Home, data_sha256: Mapping[str, str]) -> dict[str, NodeKey]:
    """The key of each node, in the order of the DAG."""
    values = {f"{section}.{key}": value for section, keys in asdict(settings).items() for key, value in keys.items()}
    return {
        node: NodeKey(
            home=str(home.root),
            settings={key: value for key, value in values.items() if key in used or key.partition(".")[0] in used},
            data=dict(data_sha256) if node in READS_DATA else {},
            sources=file_hashes(MODULES[node], ROOT),
        )
        for node, used in USED.items()
    }


def differences(before: str, now: str) -> list[str]:
    """What differs between the texts of two keys, in one short clause each. Raises ValueError if one is not a key."""
    then, new = json.loads(before), json.loads(now)
    lines = [f"{key} {a} -> {b}" for key, a, b in _changes(then["settings"], new["settings"])]
    lines += [f"{role} changed" for role, _, _ in _changes(then["data"], new["data"])]
    if then["home"] != new["home"]:
        lines.append(f"the home was {then['home']}")
    return lines + files_changed([path for path, _, _ in _changes(then["sources"], new["sources"])])


def files_changed(paths: Sequence[str]) -> list[str]:
    """One clause about changed, added or removed source files, at most: the file of a node itself is named first."""
    first = min(paths, key=lambda path: (path.count("/"), path), default=None)
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return [f"{first}{more} changed"] if first else []


def listed(lines: list[str]) -> str:
    """The first few."""
    more = len(lines) - SHOWN
    return ", ".join(lines[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Key, value before and value now, as texts, where they differ; "unset" where there is none."""
    keys = dict.fromkeys([*now, *before])
    pairs = [(key, before.get(key, _UNSET), now.get(key, _UNSET)) for key in keys]
    return [(key, shown(a), shown(b)) for key, a, b in pairs if a != b]


def shown(value: Any) -> str:
    """A setting's value in a message."""
    if value is _UNSET:
        return "unset"
    return value if isinstance(value, str) and value else json.dumps(value)
