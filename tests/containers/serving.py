"""Journeys of an operator: serving, releasing and stopping, with one home and with two."""

from __future__ import annotations

import threading
import time

from components.common.ports import version_states
from tests.containers.journal import Journal
from tests.containers.product import Home
from tests.support.servers import wait_for


def everyday(journal: Journal, home: Home) -> None:
    """Up, query, push while serving, promote, canary, rollback, down."""
    step = journal.step
    step("pipeline run, validated in a container", "exit 0, pushed 1, containers 0", lambda: _run(home))
    step("up", "exit 0, container, containers 1", lambda: _up(home))
    step("up again", "exit 0, already serving", lambda: _again(home))
    step("up --backend contianer", "exit 2", lambda: f"exit {home.up('--backend', 'contianer').code}")
    step("up --backend embedded", "exit 5", lambda: f"exit {home.up('--backend', 'embedded').code}")
    step("query over gRPC and REST", "exit 0", lambda: _query(home))
    step(
        "pipeline run while serving", "exit 0, pushed 2, containers 1", lambda: _run(home, "train.steps=110")
    )  # the one that serves
    step("the new version is served", "version 2", lambda: _served(home))
    step("promote the first version", "exit 0, version 1", lambda: _release(home, "promote", 0))
    step("canary of the second", "exit 0, canary 2", lambda: _canary(home))
    step("promote the second", "exit 0, version 2", lambda: _release(home, "promote", 1))
    step("rollback", "exit 0, version 1", lambda: _release(home, "rollback", None))
    step("down", "exit 0, containers 0, ports free", lambda: _down(home))
    step("up after down keeps the release", "exit 0, version 1", lambda: _up_again(home))
    step("down again", "exit 0, containers 0, ports free", lambda: _down(home))


def draining(journal: Journal, home: Home) -> None:
    """`down` while a request is in flight."""
    home.push_slow_model()
    journal.step("up with a slow model", "exit 0, container, containers 1", lambda: _up(home))
    journal.step(
        "down during a request of 6 s", "answered [3000], exit 0, containers 0, ports free", lambda: _drain(home)
    )


def two_homes(journal: Journal, first: Home, second: Home) -> None:
    journal.step("two homes: up", "exit 0 and 0, containers 1 and 1", lambda: _both_up(first, second))
    journal.step(
        "two homes: down of one", "exit 0, containers 0 and 1, the other serves", lambda: _one_down(first, second)
    )
    journal.step("two homes: down of the other", "exit 0, containers 0, ports free", lambda: _down(second))


def missing_image(journal: Journal, home: Home) -> None:
    """Without the image; the caller has removed it."""
    journal.step("auto without the image", "exit 0, embedded, says how to pull", lambda: _auto(home))
    journal.step("infra validation without the image", "exit 5, says how to pull", lambda: _unvalidated(home))


def _run(home: Home, *settings: str) -> str:
    done = home.pipeline(*settings)
    count = len(home.versions())
    return f"exit {done.code}, pushed {count}, containers {home.containers()}{_problem(done.code, done.stderr)}"


def _up(home: Home) -> str:
    done = home.up("--json")
    backend = done.json["backend"] if done.code == 0 else "nothing"
    return f"exit {done.code}, {backend}, containers {home.containers()}{_problem(done.code, done.stderr)}"


def _again(home: Home) -> str:
    done = home.up()
    return f"exit {done.code}, {done.stdout.partition(' with')[0]}"


def _up_again(home: Home) -> str:
    return f"exit {home.up().code}, {_served(home, 'stable')}"


def _query(home: Home) -> str:
    done = home.serving("query", "--rest", "--count", "20", "--data", home.data)
    return f"exit {done.code}{_problem(done.code, done.stderr)}"


def _served(home: Home, label: str | None = None) -> str:
    """Return which version, counted from 1, answers."""
    from serving.client import connect

    def found() -> int:
        with connect(f"127.0.0.1:{home.grpc_port}") as client:
            return home.versions().index(client.metadata("mnist", label=label).version) + 1

    if label is None:
        wait_for(lambda: found() == len(home.versions()))
    return f"version {found()}"


def _release(home: Home, action: str, index: int | None) -> str:
    done = home.serving(action, *([] if index is None else [str(home.versions()[index])]))
    return f"exit {done.code}, {_served(home, 'stable')}{_problem(done.code, done.stderr)}"


def _canary(home: Home) -> str:
    done = home.serving("canary", str(home.versions()[1]))
    return f"exit {done.code}, {_served(home, 'canary').replace('version', 'canary')}{_problem(done.code, done.stderr)}"


def _down(home: Home) -> str:
    done = home.serving("down")
    ports = "in use" if version_states(home.rest_port) else "free"
    return f"exit {done.code}, containers {home.containers()}, ports {ports}{done.stderr}"


def _drain(home: Home) -> str:
    answers: list[str] = []

    def ask() -> None:
        try:
            answers.append(f"answered {home.ask_slow_model(3000)}")  # it sleeps twice
        except OSError as e:
            answers.append(f"lost: {e}")

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(1)
    stopped = _down(home)
    asking.join()
    return f"{answers[0]}, {stopped}"


def _both_up(first: Home, second: Home) -> str:
    codes = [home.up("--json").code for home in (first, second)]
    return f"exit {codes[0]} and {codes[1]}, containers {first.containers()} and {second.containers()}"


def _one_down(first: Home, second: Home) -> str:
    code = first.serving("down").code
    other = "serves" if version_states(second.rest_port) else "does not serve"
    return f"exit {code}, containers {first.containers()} and {second.containers()}, the other {other}"


def _auto(home: Home) -> str:
    done = home.up()
    backend = "embedded" if "embedded backend" in done.stdout else done.stdout
    home.serving("down")
    return f"exit {done.code}, {backend}, {_pull(home, done.stdout)}{_problem(done.code, done.stderr)}"


def _unvalidated(home: Home) -> str:
    done = home.pipeline("train.steps=120")
    return f"exit {done.code}, {_pull(home, done.stderr)}"


def _pull(home: Home, output: str) -> str:
    return "says how to pull" if f"{home.engine} pull " in output else f"does not say how to pull: {output[-500:]}"


def _problem(code: int, stderr: str) -> str:
    return f": {stderr.strip()[-500:]}" if code else ""
