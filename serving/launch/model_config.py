"""The server's model config file: which versions it loads, and their labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from components.common import contract
from components.versions.manifest import is_proven
from components.versions.publish import MAX_VERSION
from components.versions.release import (
    NEWEST_SERVED,
    Release,
    pushed_versions,
    served_versions,
    version_folder,
    versions_folder,
)
from serving.launch.proof import loaded_versions


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


def of_release(home: Path, base_path: str, release: Release, backend: str = "", *, unproven: bool = False) -> str:
    """Return the config for serving a release of a home. Raises OSError.

    Without labels, the newest versions are served, including later ones. TensorFlow Serving counts every numbered
    folder and loads those that no run pushed, too. So if one is above the newest version, the config names the version,
    and a later one needs a restart. The embedded server does not load such folders, and gets a higher count instead.

    Args:
        unproven: the server does not verify versions.
    """
    if release.stable is not None:
        return text(base_path, loaded_versions(home, release), release.labels)
    served = served_versions(home, release)
    above = foreign_above(home, max(served, default=0))
    if unproven or not above:
        newest = pushed_versions(home)[-NEWEST_SERVED:]
        all_proven = all(is_proven(version_folder(home, version)) for version in newest)
        return text(base_path, NEWEST_SERVED if unproven or all_proven else 1, {})
    return text(base_path, NEWEST_SERVED + len(above) if backend == "embedded" else {max(served)}, {})


def foreign_above(home: Path, version: int) -> list[str]:
    """Return the names of numbered folders above the newest version that is served. Raises OSError."""
    folders = versions_folder(home)
    names = [path.name for path in folders.iterdir() if path.name.isascii() and path.name.isdecimal()]
    return sorted((name for name in names if version < int(name) <= MAX_VERSION), key=int)


def _quoted(path: str) -> str:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
