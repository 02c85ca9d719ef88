"""The faults: each is an attack on a home that is being served, and what must come of it.

A fault is a function of (product, watch) that returns what happened, in words, and raises Surprise where something else
happened than should have. What must hold after every one of them is in drill.py.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from components.data import idx
from components.versions import manifest
from components.versions.publish import publish
from tests.drills.product import REPOSITORY, Product, Watch, kill, still_alive
from tests.support.synthetic import write_idx

STRICT: Final = ("--set", "gate.min_accuracy=0.9", "--set", "gate.min_class_recall=0.9",
                 "--set", "gate.max_accuracy_drop=0.05")  # fmt: skip
GOOD: Final = (*STRICT, "--set", "train.seed=2")
DIGIT: Final = 3
POLLS_S: Final = 2.5  # in which the server has looked at the folder twice


class Surprise(AssertionError):
    """The product did something else than it should have."""


def expect(holds: Any, told: str) -> None:
    if not holds:
        raise Surprise(told)


def _not_blessed(
    product: Product, wanted: str, *words: str, data: Path | None = None, checkout: Path = REPOSITORY
) -> str:
    before = product.versions()
    done = product.run(*words, data=data, checkout=checkout)
    expect(done.code == 3, f"exit code {done.code}: {done.stderr[-500:]}")
    reason = done.json["error"].splitlines()[0]
    expect(wanted in reason, f"the reason is not {wanted}: {reason}")
    expect(product.versions() == before, f"pushed all the same: {product.versions()}")
    return f"`run`: exit 3, {reason if len(reason) < 120 else reason[:117] + '...'}"


def _relabelled(product: Product, change: Callable[[Any], Any]) -> Path:
    """The data with other training labels; those of the eval split and the test images stay as they are."""
    folder = product.home.parent / "poisoned"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(product.data, folder)
    path = idx.locate(folder).train_labels
    labels = idx.read_labels(path)
    trained_on = len(labels) - 100  # configs/quick.toml: data.eval_examples
    labels = np.concatenate([change(labels[:trained_on]), labels[trained_on:]])
    write_idx(path, labels.astype(np.uint8))
    return folder


def poisoned_labels(product: Product, _: Watch) -> str:
    def moved(labels: Any) -> Any:
        return np.where(np.random.default_rng(0).random(len(labels)) < 0.6, (labels + 1) % 10, labels)

    return _not_blessed(product, "accuracy[overall]", *GOOD, data=_relabelled(product, moved))


def blind_to_one_digit(product: Product, _: Watch) -> str:
    data = _relabelled(product, lambda labels: np.where(labels == DIGIT, 5, labels))
    loose = ("gate.min_accuracy=0.8", "gate.max_accuracy_drop=0.2", "train.allow_missing_classes=true")
    words = (*GOOD, *(word for setting in loose for word in ("--set", setting)))
    told = _not_blessed(product, f"recall[{DIGIT}]", *words, data=data)
    expect("accuracy[" not in told, f"the average should have passed: {told}")
    proof = product.validate()
    expect(proof.code == 0, f"validate: exit code {proof.code}: {proof.stderr[-500:]}")
    return f"{told}; `validate`: exit 0 (of the version that answers)"


def diverging_training(product: Product, _: Watch) -> str:
    def exported() -> int:
        return len(list(product.home.glob("artifacts/Trainer/model/*/Format-Serving/saved_model.pb")))

    before = exported()
    done = product.run(*GOOD, "--set", "train.optimizer=sgd", "--set", "train.learning_rate=1e39")
    expect(done.code == 1, f"exit code {done.code}: {done.stderr[-500:]}")
    expect("diverged" in done.json["error"], done.json["error"])
    expect(exported() == before, "a model was exported")
    return f"`run`: exit 1, {done.json['error'].splitlines()[0]}; nothing exported"


def nan_weights(product: Product, _: Watch) -> str:
    """The Trainer exports NaN (its source is changed, in a copy), and the bounds are such that any model passes."""
    checkout = product.home.parent / "checkout"
    shutil.rmtree(checkout, ignore_errors=True)
    for package in ("components", "pipeline", "serving", "configs"):
        shutil.copytree(REPOSITORY / package, checkout / package, ignore=shutil.ignore_patterns("__pycache__"))
    trainer = checkout / "components" / "trainer.py"
    line = '    log.info("exporting the SavedModel")\n'
    expect(line in trainer.read_text(), "trainer.py has changed: say here where it exports")
    broken = "    trained.model.weights[0].assign(trained.model.weights[0] * float('nan'))\n"
    trainer.write_text(trainer.read_text().replace(line, line + broken))
    anything = ("gate.min_accuracy=0", "gate.min_class_recall=0", "gate.max_accuracy_drop=1")
    words = [word for setting in anything for word in ("--set", setting)]
    return _not_blessed(product, "finite answers", *GOOD, *words, checkout=checkout)


def _refuted(product: Product, row: str) -> str:
    done = product.validate()
    expect(done.code == 6, f"validate: exit code {done.code}: {done.stdout} {done.stderr}")
    expect(done.json["failed_row"] == row, f"validate names the row {done.json['failed_row']}, not {row}")
    return f"`validate`: exit 6, row {row}"


def _restart_refused(watch: Watch) -> str:
    up = watch.restart()
    expect(up.code == 5, f"the server started: {up.code} {up.stdout} {up.stderr}")
    again = watch.product.run(*GOOD)
    expect(again.code == 0, f"run: exit {again.code}: {again.stderr[-500:]}")
    up = watch.restart()
    expect(up.code == 0, f"the server does not start after the rerun: {up.stderr}")
    watch.failures.clear()  # while it was down
    watch.settle()
    return "restart refused (exit 5) until the rerun has pushed it again"


def tampered_weights(product: Product, watch: Watch) -> str:
    folder = product.base / str(product.versions()[-1])
    (path,) = folder.glob("variables/variables.data-*")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)
    watch.settle()
    return f"{_refuted(product, 'files')}; {_restart_refused(watch)}"


def edited_manifest(product: Product, watch: Watch) -> str:
    path = product.base / str(product.versions()[-1]) / manifest.FILE_NAME
    content = json.loads(path.read_text())
    content["metrics"]["sparse_categorical_accuracy"] = 0.9999
    path.write_text(json.dumps(content, indent=1) + "\n")
    watch.settle()
    return _refuted(product, "record")


def _swapped(product: Product, pause_s: float) -> None:
    older, newer = (product.base / str(version) for version in product.versions()[-2:])
    away = product.base / "away"
    for source, target in ((newer, away), (older, newer), (away, older)):
        source.rename(target)
        time.sleep(pause_s)


def swapped_versions(product: Product, watch: Watch) -> str:
    _swapped(product, 0)
    watch.settle()
    return f"{_refuted(product, 'manifest')}; {_restart_refused(watch)}"


def slowly_swapped_versions(product: Product, watch: Watch) -> str:
    """One by one, so that the server finds each state in between."""
    _swapped(product, POLLS_S)
    watch.settle()
    return _refuted(product, "manifest")


def half_copied_version(product: Product, watch: Watch) -> str:
    """A copy by hand, in the order that TensorFlow Serving would fall for: the graph first."""
    newest = product.versions()[-1]
    source, half = product.base / str(newest), product.base / str(newest + 1)
    half.mkdir()
    shutil.copy(source / "saved_model.pb", half)
    time.sleep(POLLS_S)
    shutil.copytree(source / "variables", half / "variables")
    time.sleep(POLLS_S)
    expect(watch.now == newest, f"version {watch.now} answers")
    done = product.validate()
    expect(done.code == 0, f"validate: {done.code} {done.stderr}")
    return "not loaded; `validate`: exit 0 (of the version that answers)"


def unblessed_version(product: Product, watch: Watch) -> str:
    """A whole SavedModel that no run pushed, under the highest number."""
    newest = product.versions()[-1]
    (model, *_) = product.home.glob("artifacts/Trainer/model/*/Format-Serving")
    shutil.copytree(model, product.base / str(newest + 1))
    time.sleep(POLLS_S)
    expect(watch.now == newest, f"version {watch.now} answers")
    return "not loaded"


def full_disk(product: Product, watch: Watch) -> str:
    """A real file system (as root) with room for half a version; afterwards it is made larger."""
    newest = product.base / str(product.versions()[-1])
    size = sum(path.stat().st_size for path in newest.rglob("*") if path.is_file())
    disk = product.home.parent / "disk"
    disk.mkdir(exist_ok=True)
    held = sum(path.stat().st_size + 4096 for path in product.base.rglob("*"))
    _shell("mount", "-t", "tmpfs", "-o", f"size={held + size // 2}", "tmpfs", disk)
    shutil.copytree(product.base, disk, dirs_exist_ok=True)
    _shell("mount", "--bind", disk, product.base)  # in one step: the server never sees an empty folder
    done = product.run(*STRICT, "--set", "train.seed=3")
    expect(done.code == 5, f"exit code {done.code}: {done.stderr[-500:]}")
    told = done.json["error"].splitlines()[0]
    expect(product.versions()[-1] == int(newest.name), "something was pushed")
    watch.settle()
    _shell("mount", "-o", "remount,size=1g", disk)
    return f"`run`: exit 5, {told}"


def _shell(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


def two_pushers(product: Product, watch: Watch) -> str:
    """Two processes push two models to the same folder, five times each."""
    before = product.versions()
    spawn = multiprocessing.get_context("spawn")
    pushers = [spawn.Process(target=_push, args=(product.base, version, 5)) for version in before[-2:]]
    for pusher in pushers:
        pusher.start()
    for pusher in pushers:
        pusher.join(120)
        expect(pusher.exitcode == 0, f"a pusher ended with {pusher.exitcode}")
    new = product.versions()[len(before) :]
    expect(len(new) == 10, f"{len(new)} versions instead of 10")
    expect(watch.answers_with(new[-1]), f"version {watch.now} answers, {new[-1]} is the newest")
    return f"{len(new)} versions under {len(new)} numbers, each whole"


def _push(base: Path, version: int, times: int) -> None:
    known = manifest.read(base / str(version))
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "model")
        shutil.copytree(base / str(version), model, ignore=shutil.ignore_patterns(manifest.FILE_NAME))
        for number_pushed in range(times):
            (model / "pushed").write_text(f"{version} {number_pushed}")  # else the newest would be taken for this one
            publish(model, base, int(time.time()), lambda number, files: replace(known, version=number, files=files))


def second_run(product: Product, watch: Watch) -> str:
    """Two pipelines on one home."""
    first = product.start_run(*STRICT, "--set", "train.seed=4")
    lock = product.home / ".run.lock"
    expect(_until(lambda: lock.read_text() == str(first.pid)), "the first run does not start")
    second = product.run(*GOOD)
    expect(second.code == 5, f"the second run: exit {second.code}")
    expect(first.wait() == 0, f"the first run: exit {first.returncode}")
    expect(watch.answers_with(product.versions()[-1]), f"version {watch.now} answers")
    reason = second.stderr.splitlines()[0].removeprefix("error: ").replace(str(product.home), "the home")
    return f"the second: exit 5, {reason}; the first pushed"


def _until(holds: Callable[[], Any]) -> bool:
    deadline = time.monotonic() + 60
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.005)
    return bool(holds())


def killed_at(product: Product, watch: Watch, node: str, delay_s: float, *words: str) -> str:
    """`kill -9` some time after a node began. Returns the node that it hit ("finished" if it came too late)."""
    before = product.run_logs()
    process = product.start_run(*words)
    _until(lambda: process.poll() is not None or _logs(product, before, node))
    try:
        process.wait(delay_s)
        return "finished"
    except subprocess.TimeoutExpired:
        pass
    left = still_alive(kill(process))
    expect(not left, f"processes {left} outlived the run")
    watch.settle()
    expect(not product.untrue_versions(), f"{product.untrue_versions()}")
    expect(not watch.violations, f"{watch.violations}")
    (logs,) = product.run_logs() - before
    return max((path.stat().st_ctime_ns, path.stem) for path in logs.glob("*.log"))[1]


def _logs(product: Product, before: set[Path], node: str) -> list[Path]:
    return [folder for folder in product.run_logs() - before if (folder / f"{node}.log").exists()]


def killed_at_every_node(product: Product, watch: Watch) -> str:
    """New data: every node runs. Each run goes on where the one before was killed."""
    done = product.run(*GOOD)  # all cached: for the names
    nodes = [node["id"] for node in done.json["nodes"]]
    words = (
        *STRICT,
        "--set",
        "train.seed=5",
        "--set",
        "data.eval_examples=105",
        "--set",
        "data.max_mean_intensity=0.51",
    )
    hit = [killed_at(product, watch, node, 0.0, *words) for node in nodes]
    expect(set(hit) >= set(nodes) - {"Schema", "Baseline"}, f"hit only {hit}")  # those two take milliseconds
    done = product.run(*words)
    expect(done.code == 0, f"run: exit {done.code}: {done.stderr[-500:]}")
    return f"{len(hit)} kills, at {', '.join(dict.fromkeys(hit))}; each rerun went on from there"


def killed_in_infra_validator(product: Product, watch: Watch, times: int = 16) -> str:
    def words(number: int) -> tuple[str, ...]:  # another bound: the node runs again
        return (*GOOD, "--set", f"infra.max_p99_ms={20_000 + number}")

    return _killed_often(product, watch, "InfraValidator", words, times)


def killed_in_pusher(product: Product, watch: Watch, times: int = 16) -> str:
    """Two models in turns: the one to push is never the newest version already."""
    done = product.run(*STRICT, "--set", "train.seed=1")  # evaluates it against the other, once
    expect(done.code == 0, f"run: exit {done.code}: {done.stderr[-500:]}")

    def words(number: int) -> tuple[str, ...]:
        return (*STRICT, "--set", f"train.seed={1 + number % 2}", "--set", f"push.keep_versions={100 + number}")

    return _killed_often(product, watch, "Pusher", words, times)


def _killed_often(
    product: Product, watch: Watch, node: str, words: Callable[[int], tuple[str, ...]], times: int
) -> str:
    """Until `times` kills have hit the node, at moments spread over 1.2 times its length."""
    length_s = max(_seconds(product)[node], 0.1)
    chance = random.Random(7)
    hits, number = 0, 0
    while hits < times:
        hit = killed_at(product, watch, node, chance.uniform(0, 1.2 * length_s), *words(number))
        hits += hit == node
        number += 1
        expect(number < 4 * times, f"only {hits} of {number} kills hit {node}")
    return f"{hits} kills inside it"


def _seconds(product: Product) -> dict[str, float]:
    """How long each node took when it last ran."""
    found: dict[str, float] = {}
    for path in sorted(product.home.glob("logs/*/run.json")):
        nodes = json.loads(path.read_text())["nodes"]
        found |= {node["id"]: node["seconds"] for node in nodes if node["state"] == "ran"}
    return found
