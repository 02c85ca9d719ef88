"""Homes with pushed versions, as the Pusher leaves them: each with a manifest."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any


def folder(home: Path, version: int) -> Path:
    return home / "serving_model" / "mnist" / str(version)


def push(home: Path, version: int, source: Path | None = None, **manifest: Any) -> Path:
    """Version `version` of a home: a copy of `source`, or a file that is no model. Keywords change its manifest."""
    target = folder(home, version)
    if source is None:
        target.mkdir(parents=True)
        (target / "saved_model.pb").write_bytes(b"no model")
    else:
        shutil.copytree(source, target)
    files = {
        str(path.relative_to(target)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in target.rglob("*")
        if path.is_file()
    }
    content = {"version": version, "blessed": True, "infra_blessed": None, "files": files} | manifest
    (target / "manifest.json").write_text(json.dumps(content))
    return target
