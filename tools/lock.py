"""Write requirements.lock: all packages of all extras, hashed, without URLs, for all platforms and Python versions.

compat/uv.toml has constraints for old glibc. If the resolution fails, requirements.lock is unchanged.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
OLDEST_PYTHON = "3.11"


def main() -> None:
    new = LOCK.with_name(".requirements.lock.new")
    command = [
        str(Path(sys.executable).with_name("uv")),
        *("pip", "compile", "pyproject.toml", "--all-extras", "--config-file", "compat/uv.toml"),
        *("--universal", "--python-version", OLDEST_PYTHON, "--generate-hashes"),
        *("--no-header", "--no-annotate", "--no-emit-index-url", "--upgrade", "--quiet", "-o", new.name),
    ]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    if done.returncode != 0:
        new.unlink(missing_ok=True)
        raise SystemExit("lock: the resolution failed; requirements.lock is unchanged")
    if "://" in new.read_text():
        new.unlink()
        raise SystemExit("lock: the resolver wrote a URL; requirements.lock is unchanged")
    new.replace(LOCK)
    count = sum("==" in line for line in LOCK.read_text().splitlines())
    print(f"lock: {count} packages in {LOCK.name}; `make setup` installs them")


if __name__ == "__main__":
    main()
