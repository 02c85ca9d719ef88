"""Files and locks that somebody else put there."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.common.errors import InputError
from components.common.files import locked, write_durably
from tests.support.unprivileged import unprivileged


def test_links_in_the_place_of_a_lock_or_a_temporary_file_are_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("content")
    (tmp_path / ".lock").symlink_to(target)
    with pytest.raises(InputError, match=r"\.lock: is a symlink"), locked(tmp_path / ".lock"):
        pass
    (tmp_path / ".release.json.new").symlink_to(target)
    write_durably(tmp_path / "release.json", "new")
    assert ((tmp_path / "release.json").read_text(), target.read_text()) == ("new", "content")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "precious", "release.json"]


def test_a_lock_that_may_only_be_read_excludes_others_all_the_same(tmp_path: Path) -> None:
    class Held(Exception):
        pass

    def refuse() -> None:
        raise Held

    path = tmp_path / ".lock"
    path.touch(0o444)
    with unprivileged(), locked(path) as file:
        assert not file.writable()
        with pytest.raises(Held), locked(path, refuse):
            pass
    with locked(path, refuse):
        pass


def test_what_to_do_about_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o555)
    with unprivileged(), pytest.raises(InputError, match=r"release\.json: cannot be written") as caught:
        write_durably(folder / "release.json", "new")
    assert caught.value.remedy.startswith("Change its permissions")
