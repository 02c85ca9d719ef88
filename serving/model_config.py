"""The server's model config file: which versions it loads, and their labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from components import contract
from components.pins import NEWEST_SERVED, Release
from serving.proof import loaded_versions

NEWEST: Final = f"latest {{ num_versions: {NEWEST_SERVED} }}"


def text(base_path: str, versions: Collection[int] | None, labels: Mapping[str, int]) -> str:
    """A ModelServerConfig of one model, in text format.

    Args:
        base_path: folder of the versions, as the server sees it.
        versions: to load; None: the newest ones, as they are pushed.
        labels: versions by label.
    """
    numbers = "".join(f" versions: {number}" for number in sorted(versions or ()))
    policy = NEWEST if versions is None else f"specific {{{numbers} }}"
    lines = [f'    version_labels {{ key: "{label}" value: {number} }}\n' for label, number in labels.items()]
    return (
        "model_config_list {\n"
        "  config {\n"
        f'    name: "{contract.MODEL_NAME}"\n'
        f"    base_path: {_quoted(base_path)}\n"
        '    model_platform: "tensorflow"\n'
        f"    model_version_policy {{ {policy} }}\n"
        f"{''.join(lines)}"
        "  }\n"
        "}\n"
    )


def of_release(home: Path, base_path: str, release: Release) -> str:
    """The config for what is to be served from a home. Raises OSError."""
    versions = None if release.stable is None else loaded_versions(home, release)
    return text(base_path, versions, release.labels)


def _quoted(path: str) -> str:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
