"""Write the measured numbers of build/*.json into README.md and docs/operations.md, between their markers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

REPOSITORY = Path(__file__).resolve().parent.parent
README = REPOSITORY / "README.md"
OPERATIONS = REPOSITORY / "docs" / "operations.md"


def first_run(document: Mapping[str, Any]) -> str:
    first, second = document["runs"]
    cached = sum(node["state"] == "cached" for node in second["nodes"])
    return (
        f"```console\n$ make pipeline\n{first['printed'].rstrip()}\n```\n\n"
        f"Run again, unchanged: {cached} of {len(second['nodes'])} nodes cached, "
        f"{second['seconds']:.1f} s instead of {first['seconds']:.1f} s."
    )


def tfx_example(document: Mapping[str, Any]) -> str:
    median, ratio = document["median_seconds"], document["median_ratio"]
    accuracy = {system: one["accuracy"] for system, one in document["rounds"][0].items()}
    lines = ["| | median seconds | our time / its time | accuracy |", "|---|---|---|---|"]
    for system, name in document["systems"].items():
        share = f"{ratio[f'A/{system}']:.2f}" if system != "A" else ""
        lines.append(f"| {name} | {median[system]:.1f} | {share} | {accuracy[system]:.4f} |")
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    return "\n".join(lines) + f"\n\n{len(document['rounds'])} rounds on {document['cores']} cores; {versions}."


def serving(document: Mapping[str, Any]) -> str:
    rows = {(row["server"], row["batch"], row["clients"]): row for row in document["rows"]}
    servers = dict.fromkeys(server for server, _, _ in rows)
    lines = [
        "Requests per second (p50 / p99 in ms), each server alone with the load generator on the same "
        f"{document['cores']} cores, {document['seconds']:g} s a cell:",
        "",
        f"| images per request, clients | {' | '.join(servers)} | embedded gRPC / no-op | / FastAPI |",
        f"|---|{'---:|' * (len(servers) + 2)}",
    ]
    for batch, clients in dict.fromkeys((batch, clients) for _, batch, clients in rows):
        cells = []
        for server in servers:
            row = rows[server, batch, clients]
            cells.append(f"{row['requests_per_s']:,.0f} ({row['p50_ms']:.1f} / {row['p99_ms']:.1f})")
        ratio = document["embedded_grpc"][f"batch {batch}, {clients} clients"]
        cells += [f"{ratio['of no-op']:.2f}", f"{ratio['of FastAPI']:.1f}"]
        lines.append(f"| {batch}, {clients} | {' | '.join(cells)} |")
    return "\n".join(lines)


def serving_swaps(document: Mapping[str, Any]) -> str:
    return (
        f"{document['swaps']} version swaps under a steady load: {document['requests']:,} requests, "
        f"{document['failed']} failed, {document['answered_by_a_version_before_it_was_published']} answered by a "
        f"version too early (p50 {document['p50_ms']:.1f} ms, p99 {document['p99_ms']:.1f} ms)."
    )


def serving_drain(document: Mapping[str, Any]) -> str:
    return (
        f"SIGTERM under the load of {document['clients']} clients, {document['rounds']} times: "
        f"{document['answered']:,} requests answered, {document['lost']} sent before the signal and not answered, "
        f"exit codes {document['exit_codes']}, slowest exit {document['slowest_exit_s']:.1f} s."
    )


def serving_soak(document: Mapping[str, Any]) -> str:
    return (
        f"{document['requests']:,} requests on end: {document['failed']} failed, memory after warm-up "
        f"{document['growth']:+.2%}."
    )


def training(document: Mapping[str, Any]) -> str:
    lines = ["| configuration | test accuracy | train accuracy |", "|---|---|---|"]
    for name, found in document["configs"].items():
        cells = [
            f"{mean:.4f} ± {deviation:.4f}" for mean, deviation in (found["test_accuracy"], found["train_accuracy"])
        ]
        lines.append(f"| `configs/{name}.toml` | {' | '.join(cells)} |")
    seeds = len(document["configs"]["default"]["runs"])
    return "\n".join(lines) + f"\n\nMean and standard deviation of {seeds} seeds, through the whole pipeline."


def training_speed(document: Mapping[str, Any]) -> str:
    speeds, ratios = document["median_steps_per_second"], document["ours_times_faster_than"]
    lines = ["| loop, batch 256, same network | steps per second | ours is faster by |", "|---|---:|---:|"]
    for name, speed in sorted(speeds.items(), key=lambda item: -item[1]):
        ratio = "" if name.startswith("ours") else f"{ratios[name]['by_wall_time']:.1f}"
        lines.append(f"| {name} | {speed:,} | {ratio} |")
    return "\n".join(lines) + (
        f"\n\nMedians of {len(document['rounds'])} alternating rounds on {document['cores']} cores. Ours, without "
        f"augmentation, does {document['share_of_sgemm']:.0%} of the arithmetic that large matrix products reach in "
        "the same round."
    )


def training_resume(document: Mapping[str, Any]) -> str:
    killed = document["killed"]
    return (
        f"`kill -9` at {len(killed)} random moments of a training, each run again: {document['same_weights']} ended "
        "with bit-identical weights to a run that was not killed. "
        f"{document['resumed_from_a_checkpoint']} went on from a checkpoint, the others had none yet."
    )


def serving_rollback(document: Mapping[str, Any]) -> str:
    lines = [
        "| back to a version that is | requests by label, median / slowest | without a label | the whole command |"
    ]
    lines.append("|---|---:|---:|---:|")
    for kind in ("loaded", "not loaded"):
        seconds = document[f"rollback to a version that is {kind}"]
        cells = [
            f"{seconds[k]['median']:.2f} s / {seconds[k]['max']:.2f} s" for k in ("label_s", "no_label_s", "command_s")
        ]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines) + (
        "\n\nFrom the command's start to the last answer of the version that was left. "
        f"{document['rollbacks']} rollbacks, {document['requests']:,} requests, {document['failed']} failed; "
        f"p99 {document['with rollbacks']['p99_ms']:.1f} ms, without rollbacks {document['without']['p99_ms']:.1f} ms."
    )


def drills(document: Mapping[str, Any]) -> str:
    lines = ["| fault | what happened | served before | served after | after a rerun |", "|---|---|---|---|---|"]
    for row in document["rows"]:
        happened = row["happened"] if not row["problems"] else f"**FAILED** {'; '.join(row['problems'])}"
        cells = [row["fault"], happened.replace("|", "\\|"), row["before"], row["after"], row["repeated"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def drills_kill(document: Mapping[str, Any]) -> str:
    places = ", ".join(f"{node} {count}" for node, count in document["killed_at"].items())
    return (
        f"`kill -9` of the pipeline at random times across whole runs: {document['kills']} kills, "
        f"{document['bad_states']} bad states. They hit: {places}."
    )


BLOCKS: Final[Mapping[str, tuple[str, Callable[[Mapping[str, Any]], str]]]] = {
    "first-run": ("bench_first_run.json", first_run),
    "training": ("bench_training_scores.json", training),
    "training-speed": ("bench_training_speed.json", training_speed),
    "training-resume": ("bench_training_resume.json", training_resume),
    "tfx-example": ("bench_tfx_example.json", tfx_example),
    "serving": ("bench_serving.json", serving),
    "serving-swaps": ("bench_serving_swaps.json", serving_swaps),
    "serving-drain": ("bench_serving_drain.json", serving_drain),
    "serving-soak": ("bench_serving_soak.json", serving_soak),
    "serving-rollback": ("bench_serving_rollback.json", serving_rollback),
    "drills": ("drills.json", drills),
    "drills-kill": ("drills_kill.json", drills_kill),
}
PAGES: Final = dict.fromkeys(("serving-rollback", "drills", "drills-kill"), OPERATIONS)  # the others: README


def main() -> None:
    for block, (name, render) in BLOCKS.items():
        source, page = REPOSITORY / "build" / name, PAGES.get(block, README)
        if not source.exists():
            print(f"{block}: no {source.relative_to(REPOSITORY)}, left as it was")
            continue
        filled = f"<!-- {block} -->\n{render(json.loads(source.read_text()))}\n<!-- /{block} -->"
        pattern = re.compile(rf"<!-- {block} -->.*?<!-- /{block} -->", re.DOTALL)
        text, count = pattern.subn(filled.replace("\\", r"\\"), page.read_text())
        if count != 1:
            raise SystemExit(f"{page.name}: expected one block {block}, found {count}")
        page.write_text(text)
        print(f"{block}: written from {source.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
