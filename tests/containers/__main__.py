"""Try the product with a container engine: `python -m tests.containers` (`make test-containers`).

Writes build/containers.md. Exit codes: 0 all steps as expected, 1 some not, 5 no engine or no base image.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from components.common import ROOT
from components.common.container_engine import call
from components.common.errors import UserError
from components.versions.release import pushed_versions
from serving.launch.container import LABEL
from tests.containers import images, kills, serving
from tests.containers.journal import Journal
from tests.containers.product import Home
from tests.support.synthetic import write_data_set

USER: Final = "10001:0"
REAL: Final = {"TensorFlow Serving": None}


def main() -> int:
    started = time.monotonic()
    try:
        engine = images.working_engine()
        images.build_product(engine)
        real = images.real_server(engine)
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        return e.exit_code
    print(f"{engine}: images ready after {time.monotonic() - started:.0f} s", flush=True)
    journal = Journal(ROOT / "build" / "containers.md")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        data = write_data_set(folder / "data")
        run_in_container(journal, engine, folder / "in-container", data)
        try:
            for number, (name, on_term) in enumerate((REAL if real else images.MODES).items()):
                if on_term is not None:
                    images.stand_in(engine, on_term)
                journal.image = name
                home = journeys(journal, folder / str(number), data, engine)
        finally:
            images.remove_stand_in(engine)
        if not real:
            journal.image = "no image"
            serving.missing_image(journal, home)
    journal.image = "all"
    journal.step("containers left", "none", lambda: _left(engine, folder))
    seconds = time.monotonic() - started
    print(f"{len(journal.rows)} steps, {journal.failed} not as expected, {seconds:.0f} s; {journal.path}")
    return 1 if journal.failed else 0


def journeys(journal: Journal, folder: Path, data: Path, engine: str) -> Home:
    """All journeys with one server's image. Returns the home of most of them."""
    main_home, slow_home = (Home.make(folder / name, data, engine) for name in ("main", "slow"))
    serving.everyday(journal, main_home)
    serving.draining(journal, slow_home)
    serving.two_homes(journal, slow_home, main_home)
    kills.serving(journal, main_home)
    kills.pipeline(journal, main_home)
    return main_home


def run_in_container(journal: Journal, engine: str, home: Path, data: Path) -> None:
    """Run the whole pipeline in the product's image, as Kubernetes would: no root, no network, read-only."""
    journal.image = "product"
    home.mkdir()
    home.chmod(0o777)
    options = ["--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp", "--memory", "2g", "--user", USER]
    mounts = ["--volume", f"{home}:/home/run", "--volume", f"{data}:/data:ro", "--security-opt", "label=disable"]
    words = ["python", "-m", "pipeline", "run", "--config", "configs/quick.toml", "--home", "/home/run"]
    settings = ["--set", "data.source=/data", "--set", "serving.backend=embedded"]

    def act() -> str:
        call(engine, "run", *options, *mounts, images.PRODUCT, *words, *settings, timeout_s=600)
        return f"pushed {len(pushed_versions(home))}"

    journal.step(f"pipeline as {USER}, no network, read-only, 2 GiB", "pushed 1", act)
    # The files are the container's user's: only a container can delete them without being root.
    call(engine, "run", "--rm", "--user", "0", *mounts, images.PRODUCT, "sh", "-c", "rm -rf /home/run/*")


def _left(engine: str, folder: Path) -> str:
    """Return the containers of homes in this folder; others may serve a home of the user's."""
    found = call(engine, "ps", "--all", "--filter", f"label={LABEL}", "--format", "{{.Names}} {{.Labels}}")
    return "\n".join(line for line in found.splitlines() if str(folder) in line) or "none"


if __name__ == "__main__":
    sys.exit(main())
