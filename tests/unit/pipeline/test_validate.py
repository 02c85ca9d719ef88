"""The errors of the serving commands that `validate` runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.validation.trial_server import ServerError, serving


def test_the_error_of_a_command_is_passed_on_without_its_prefix(tmp_path: Path) -> None:
    with pytest.raises(ServerError) as caught:
        serving("status", "--home", str(tmp_path))
    assert caught.value.problem == f"{tmp_path}: no server is running"
    assert caught.value.remedy.startswith("Start one: ")
