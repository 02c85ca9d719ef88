"""tools/setup.py: packages that are published as source only, built by the real uv from a local folder."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.terminal import on_terminal
from tests.support.unprivileged import unprivileged
from tools import setup
from tools.setup import has_cache, sync

UV = Path(sys.executable).with_name("uv")


def setuptools_wheel(folder: Path, version: str, statement: str = "") -> Path:
    """The installed setuptools as a wheel with this version, which runs the statement when it is imported."""
    path = folder / f"setuptools-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file in importlib.metadata.files("setuptools") or ():
            name, content = str(file), file.locate()
            if name.endswith((".pyc", "RECORD")):
                continue
            data = Path(str(content)).read_bytes()
            if name == "setuptools/__init__.py":
                data = data.replace(b"import functools\n", f"import functools\n{statement}\n".encode(), 1)
            if name.startswith("setuptools-"):
                name = f"setuptools-{version}.dist-info/{name.partition('.dist-info/')[2]}"
                installed = importlib.metadata.version("setuptools")
                data = data.replace(f"\nVersion: {installed}\n".encode(), f"\nVersion: {version}\n".encode())
            wheel.writestr(name, data)
        wheel.writestr(f"setuptools-{version}.dist-info/RECORD", "")
    return path


def source_package(folder: Path) -> Path:
    """A package without a wheel and without pyproject.toml, as rouge-score is."""
    path = folder / "source_only-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        files = {
            "setup.py": "import setuptools as s\ns.setup(name='source-only', version='1.0', py_modules=['alone'])\n",
            "alone.py": "",
            "PKG-INFO": "Metadata-Version: 2.1\nName: source-only\nVersion: 1.0\n",
        }
        for name, text in files.items():
            member = tarfile.TarInfo(f"source_only-1.0/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def locked(name: str, version: str, file: Path) -> str:
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}\n"


@pytest.mark.parametrize("version", ["84.0", "999.0"])
def test_only_the_locked_setuptools_runs(tmp_path: Path, version: str) -> None:
    """Where uv looks for packages there is a setuptools with other content, or a newer one."""
    packages, venv, mark = tmp_path / "packages", tmp_path / "venv", tmp_path / "it_ran"
    packages.mkdir()
    entries = locked("setuptools", "84.0", setuptools_wheel(packages, "84.0"))
    entries += locked("source-only", "1.0", source_package(packages))
    lock = tmp_path / "requirements.lock"
    lock.write_text(entries)
    setuptools_wheel(packages, version, f"open({str(mark)!r}, 'w').close()")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH" and not k.startswith("UV_")}
    environment |= {"UV_FIND_LINKS": str(packages), "UV_NO_INDEX": "1", "UV_CACHE_DIR": str(tmp_path / "cache")}
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, venv], env=environment, check=True)
    command = [str(word) for word in sync(UV, venv / "bin" / "python", lock)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)

    assert not mark.exists(), done.stderr
    installed = list(venv.glob("lib/*/site-packages/alone.py"))
    if version == "84.0":
        assert "ash mismatch" in done.stderr and done.returncode and not installed
    else:
        assert installed, done.stderr


def test_a_lock_that_is_a_symlink_is_refused_and_its_target_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "precious").write_text("content")
    (tmp_path / ".setup.lock").symlink_to(tmp_path / "precious")
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    monkeypatch.setattr(setup, "wanted_state", lambda: "")
    with pytest.raises(SystemExit, match="5"):
        setup.main()
    assert ".setup.lock cannot be written" in capsys.readouterr().err
    assert (tmp_path / "precious").read_text() == "content"


def test_a_home_folder_that_cannot_be_written_is_no_place_for_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "read-only").mkdir(mode=0o555)
    for home, expected in ((tmp_path / "read-only", False), (tmp_path / "new", True)):
        monkeypatch.setenv("HOME", str(home))
        with unprivileged():
            assert has_cache({}) is expected
    assert has_cache({"UV_CACHE_DIR": "elsewhere"})


def test_a_read_only_checkout_that_is_set_up_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkout").mkdir()
    monkeypatch.setattr(setup, "ROOT", tmp_path / "checkout")
    monkeypatch.setattr(setup, "STAMP", tmp_path / "stamp")
    monkeypatch.setattr(setup, "wanted_state", lambda: "up to date")
    monkeypatch.setattr(setup, "MIN_FREE_BYTES", 0)
    (tmp_path / "checkout").chmod(0o555)
    with unprivileged():
        with pytest.raises(SystemExit) as refused:
            setup.main()
        (tmp_path / "stamp").write_text("up to date")
        setup.main()
    assert refused.value.code == setup.EXIT_ENVIRONMENT


INSTALLER = r"""
import sys
print("terminal" if sys.stderr.isatty() else "no terminal")
print(" + numpy==2.4.6")
print(" \x1b[32m+\x1b[39m \x1b[1mscipy\x1b[0m==1")
print("Installed 2 packages", end="", flush=True)
"""


@pytest.mark.parametrize("with_terminal", [True, False])
def test_an_installer_can_draw_on_the_terminal_and_its_list_is_left_out(with_terminal: bool) -> None:
    code = f"from tools import setup; import sys; setup.step('install', sys.executable, '-c', {INSTALLER!r})"
    command = [sys.executable, "-c", code]
    if with_terminal:
        lines = [line for line in on_terminal(command).lines if line]
    else:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        lines = done.stderr.splitlines()
    assert lines[1] == ("terminal" if with_terminal else "no terminal")
    assert lines[2].startswith("Installed 2 packages") and "numpy" not in "".join(lines)
