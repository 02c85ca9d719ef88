"""The server's model config file: which versions it loads, and their labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from components.common import contract
from components.versions.release import NEWEST_SERVED, Release, pushed_versions, version_folder
from serving.launch.proof import is_proven, loaded_versions


def text(base_path: str, versions: Collection[int] | int, labels: Mapping[str, int]) -> str:
    """Return a ModelServerConfig of one model, in text format.

    Args:
        base_path: folder of the versions, as the server sees it.
        versions: the versions to load; a number N means the newest N, including versions pushed later.
        labels: versions by label.
    """
    if isinstance(versions, int):
        policy = f"latest {{ num_versions: {versions} }}"
    else:
        policy = f"specific {{{''.join(f' versions: {number}' for number in sorted(versions))} }}"
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
    """Return the config for serving a release of a home. Raises OSError."""
    if release.stable is None:
        newest = pushed_versions(home)[-NEWEST_SERVED:]
        all_proven = all(is_proven(version_folder(home, version)) for version in newest)
        return text(base_path, NEWEST_SERVED if all_proven else 1, {})
    return text(base_path, loaded_versions(home, release), release.labels)


def _quoted(path: str) -> str:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
