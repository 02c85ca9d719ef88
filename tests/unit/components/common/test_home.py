from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from components.common.errors import InputError
from components.common.home import Home
from tests.conftest import ROOT

HOLD = """
import sys, time
from pathlib import Path
from components.common.home import Home
with Home(Path(sys.argv[1])).exclusive():
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_refused_until_the_first_one_ends_or_is_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(InputError, match=f"process {holder.pid}"), Home(tmp_path).exclusive():
            pass
        holder.kill()
        holder.wait()
    with Home(tmp_path).exclusive():
        pass


def test_a_home_that_cannot_be_created_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written") as caught, Home(tmp_path / "file" / "home").exclusive():
        pass
    assert "--home" in caught.value.remedy
