"""Uninstall the packages of some extras; used when the image of the Kubeflow tasks is built."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = ("dev", "bench", "tensorboard")


def names(pyproject: str) -> list[str]:
    """Packages of these extras that the product itself does not require."""
    project = tomllib.loads(pyproject)["project"]
    extras = project["optional-dependencies"]
    kept = [*project["dependencies"], *(line for k, v in extras.items() if k not in LEFT_OUT for line in v)]
    found = {_name(line) for extra in LEFT_OUT for line in extras[extra]}
    return sorted(found - {_name(line) for line in kept})


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower()


def main() -> None:
    packages = names((ROOT / "pyproject.toml").read_text())
    subprocess.run([sys.executable, "-m", "pip", "uninstall", "--yes", "--quiet", *packages], check=True)
    print(f"slim: uninstalled {', '.join(packages)}")


if __name__ == "__main__":
    main()
