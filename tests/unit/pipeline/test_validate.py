"""`validate` while the served version changes: all rows are about one version."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.common.errors import InputError
from components.common.home import Home
from components.validation.trial_server import ServerError, serving
from pipeline import validate
from pipeline.validate import Row


@pytest.mark.parametrize(("served", "version"), [([1, 1], 1), ([1, 2, 2, 2], 2), ([1, 2, 2, 3], None)])
def test_the_rows_are_all_about_one_version(
    served: list[int], version: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(served)

    @contextlib.contextmanager
    def running(*_: Any) -> Iterator[dict[str, Any]]:
        yield {"grpc_port": 0, "rest_port": 0}

    def rows(self: validate._Proof) -> list[Row]:
        self.version = next(answers)
        return [Row("server", True, f"version {self.version}")]

    monkeypatch.setattr(validate, "_server", running)
    monkeypatch.setattr(validate._Proof, "rows", rows)
    monkeypatch.setattr(validate._Proof, "served_version", lambda self: next(answers))
    if version is None:
        with pytest.raises(InputError, match="changed from 2 to 3"):
            validate.validate(Home(tmp_path), None, print)
        return
    assert validate.validate(Home(tmp_path), None, print) == (version, [Row("server", True, f"version {version}")])


def test_the_error_of_a_command_is_passed_on_without_its_prefix(tmp_path: Path) -> None:
    with pytest.raises(ServerError) as caught:
        serving("status", "--home", str(tmp_path))
    assert caught.value.problem == f"{tmp_path}: no server is running"
    assert caught.value.remedy.startswith("Start one: ")
