"""Write the measured numbers from build/*.json into README.md and docs/benchmarks.md, between their markers.

python -m benchmarks.pages      (the last step of `make bench`)
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from benchmarks.harness import RESULTS
from components.common import ROOT

Document = Mapping[str, Any]


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], align: str = "---:") -> str:
    """A Markdown table; `align` applies to all columns but the first."""
    lines = [columns, ["---", *[align] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def first_run(document: Document) -> str:
    first, second = document["runs"]
    cached = sum(node["state"] == "cached" for node in second["nodes"])
    return (
        f"```console\n$ make pipeline\n{first['printed'].rstrip()}\n```\n\n"
        f"Run again, unchanged: {cached} of {len(second['nodes'])} nodes cached, "
        f"{second['seconds']:.1f} s instead of {first['seconds']:.1f} s."
    )


def tfx_example(document: Document) -> str:
    median, ratio = document["median_seconds"], document["median_ratio"]
    accuracy = {system: one["accuracy"] for system, one in document["rounds"][0].items()}
    rows = [
        [name, f"{median[key]:.1f}", "" if key == "A" else f"{ratio[f'A/{key}']:.2f}", f"{accuracy[key]:.4f}"]
        for key, name in document["systems"].items()
    ]
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    return (
        f"{table(['', 'median seconds', 'our time / its time', 'accuracy'], rows)}\n\n"
        f"{len(document['rounds'])} rounds on {document['cores']} cores; {versions}."
    )


def serving(document: Document) -> str:
    found = {(row["server"], row["batch"], row["clients"]): row for row in document["rows"]}
    servers = dict.fromkeys(server for server, _, _ in found)
    rows = []
    for batch, clients in dict.fromkeys((batch, clients) for _, batch, clients in found):
        cells = [f"{batch}, {clients}"]
        for server in servers:
            row = found[server, batch, clients]
            cells.append(f"{row['requests_per_s']:,.0f} ({row['p50_ms']:.1f} / {row['p99_ms']:.1f})")
        ratio = document["embedded_grpc"][f"batch {batch}, {clients} clients"]
        rows.append([*cells, f"{ratio['of no-op']:.2f}", f"{ratio['of FastAPI']:.1f}"])
    columns = ["images per request, clients", *servers, "embedded gRPC / no-op", "embedded gRPC / FastAPI"]
    return (
        "Requests per second (p50 / p99 in ms), each server alone with the load generator on the same "
        f"{document['cores']} cores, {document['seconds']:g} s a cell:\n\n{table(columns, rows)}"
    )


def serving_swaps(document: Document) -> str:
    return (
        f"{document['swaps']} version swaps under a steady load: {document['requests']:,} requests, "
        f"{document['failed']} failed, {document['answered_by_a_version_before_it_was_published']} answered by a "
        f"version that was not yet published (p50 {document['p50_ms']:.1f} ms, p99 {document['p99_ms']:.1f} ms)."
    )


def serving_drain(document: Document) -> str:
    return (
        f"SIGTERM under the load of {document['clients']} clients, {document['rounds']} times: "
        f"{document['answered']:,} requests answered, {document['lost']} sent before the signal but not answered, "
        f"exit codes {document['exit_codes']}, slowest exit {document['slowest_exit_s']:.1f} s."
    )


def serving_soak(document: Document) -> str:
    return (
        f"{document['requests']:,} requests in a row: {document['failed']} failed, memory growth after "
        f"warm-up {document['growth']:+.2%}."
    )


def serving_rollback(document: Document) -> str:
    rows = []
    for kind in ("loaded", "not loaded"):
        seconds = document[f"rollback to a version that is {kind}"]
        found = [seconds[name] for name in ("label_s", "no_label_s", "command_s")]
        rows.append([kind, *(f"{one['median']:.2f} s / {one['max']:.2f} s" for one in found)])
    columns = ["rollback to a version that is", "requests by label, median / slowest", "without a label", "the command"]
    return (
        f"{table(columns, rows)}\n\n"
        "From the start of the command to the last answer of the version that was replaced. "
        f"{document['rollbacks']} rollbacks, {document['requests']:,} requests, {document['failed']} failed; "
        f"p99 {document['with rollbacks']['p99_ms']:.1f} ms, without rollbacks {document['without']['p99_ms']:.1f} ms."
    )


def training(document: Document) -> str:
    rows = []
    for name, found in document["configs"].items():
        scores = (found["test_accuracy"], found["train_accuracy"])
        rows.append([f"`configs/{name}.toml`", *(f"{mean:.4f} ± {deviation:.4f}" for mean, deviation in scores)])
    seeds = len(document["configs"]["default"]["runs"])
    return (
        f"{table(['configuration', 'test accuracy', 'train accuracy'], rows)}\n\n"
        f"Mean and standard deviation of {seeds} seeds, through the whole pipeline."
    )


def training_speed(document: Document) -> str:
    speeds, ratios = document["median_steps_per_second"], document["ours_times_faster_than"]
    rows = [
        [name, f"{speed:,}", "" if name.startswith("ours") else f"{ratios[name]['by_wall_time']:.1f}"]
        for name, speed in sorted(speeds.items(), key=lambda item: -item[1])
    ]
    columns = ["loop, batch 256, same network", "steps per second", "our speed / its speed"]
    return (
        f"{table(columns, rows)}\n\n"
        f"Medians of {len(document['rounds'])} alternating rounds on {document['cores']} cores. Without augmentation, "
        f"our loop reaches {document['share_of_sgemm']:.0%} of the arithmetic throughput of large matrix products in "
        "the same round."
    )


def training_resume(document: Document) -> str:
    return (
        f"`kill -9` at {len(document['killed'])} random moments of a training, each run again: "
        f"{document['same_weights']} ended with weights bit-identical to those of a run that was not killed. "
        f"{document['resumed_from_a_checkpoint']} resumed from a checkpoint; the others had none yet."
    )


def significance(document: Document) -> str:
    rows = [
        [
            f"{row['images']:,}",
            f"{row['baseline']:g}, {row['candidate']:g}",
            f"{row['refused']:,} of {row['pairs']:,}",
            f"{row['interval'][0]:.3f} to {row['interval'][1]:.3f}",
            f"{row['theoretical']:.3f}",
            f"{row['discordant']:.2%}",
        ]
        for row in document["rows"]
    ]
    columns = [
        "test images",
        "true accuracy of baseline, candidate",
        "refused",
        "share, 95 % interval",
        "theoretical share",
    ]
    return table([*columns, "images on which one of two is right"], rows)


def drills(document: Document) -> str:
    rows = []
    for row in document["rows"]:
        happened = row["happened"] if not row["problems"] else f"**FAILED** {'; '.join(row['problems'])}"
        rows.append([row["fault"], happened.replace("|", "\\|"), row["before"], row["after"], row["repeated"]])
    return table(["fault", "what happened", "served before", "served after", "after a rerun"], rows, "---")


def drills_kill(document: Document) -> str:
    places = ", ".join(f"{node} {count}" for node, count in document["killed_at"].items())
    return (
        f"`kill -9` of the pipeline at random times across whole runs: {document['kills']} kills, "
        f"{document['bad_states']} bad states. They hit: {places}."
    )


def drills_server(document: Document) -> str:
    rows = []
    for name, found in document.items():
        for when, outcome in found.items():
            if not isinstance(outcome, Mapping):
                continue
            shown = {key: value for key, value in outcome.items() if key not in DRILL_COLUMNS}
            client = outcome.get("well_behaved", {})
            slowest = max((kind["p99_ms"] for kind in client.values() if isinstance(kind, Mapping)), default=None)
            cells = [
                "" if slowest is None else f"{slowest:,.0f} ms",
                str(client.get("errors", "")),
                f"{outcome['peak_mb']:,} MB",
                "killed" if outcome["exit_code"] is None else str(outcome["exit_code"]),
            ]
            rows.append([name, when, _listed(shown), *cells])
    columns = ["attack", "server", "what happened", "p99 of a client", "its errors", "peak memory", "exit code"]
    return table(columns, rows, "---")


def _listed(found: Mapping[str, Any]) -> str:
    """`a: 1, b: c 2, d 3`, for a table cell."""
    shown = {k: " ".join(map(str, v)) if isinstance(v, list) else v for k, v in found.items()}
    parts = {k: _listed(v) if isinstance(v, Mapping) else str(v) for k, v in shown.items()}
    return "; ".join(f"{key}: {text}" for key, text in parts.items() if text).replace("_", " ").replace("|", "\\|")


DRILL_COLUMNS: Final = ("well_behaved", "peak_mb", "exit_code", "crashed", "seconds")
README: Final = "README.md"
BENCHMARKS: Final = "docs/benchmarks.md"
# Marker: page, record in build/, renderer.
BLOCKS: Final[Mapping[str, tuple[str, str, Callable[[Document], str]]]] = {
    "first-run": (README, "bench_first_run.json", first_run),
    "tfx-example": (BENCHMARKS, "bench_tfx_example.json", tfx_example),
    "training": (BENCHMARKS, "bench_training_scores.json", training),
    "training-speed": (BENCHMARKS, "bench_training_speed.json", training_speed),
    "training-resume": (BENCHMARKS, "bench_training_resume.json", training_resume),
    "significance": (BENCHMARKS, "bench_significance.json", significance),
    "serving": (BENCHMARKS, "bench_serving.json", serving),
    "serving-swaps": (BENCHMARKS, "bench_serving_swaps.json", serving_swaps),
    "serving-drain": (BENCHMARKS, "bench_serving_drain.json", serving_drain),
    "serving-soak": (BENCHMARKS, "bench_serving_soak.json", serving_soak),
    "serving-rollback": (BENCHMARKS, "bench_serving_rollback.json", serving_rollback),
    "drills": (BENCHMARKS, "drills.json", drills),
    "drills-server": (BENCHMARKS, "drills_server.json", drills_server),
    "drills-kill": (BENCHMARKS, "drills_kill.json", drills_kill),
}


def fill(text: str, marker: str, content: str) -> str:
    """`text` with the block between `<!-- marker -->` and `<!-- /marker -->` replaced. Raises ValueError."""
    begin, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    filled, count = re.subn(f"{begin}.*?{end}", lambda _: f"{begin}\n{content}\n{end}", text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"expected one block {marker}, found {count}")
    return filled


def main() -> None:
    for marker, (name, record, render) in BLOCKS.items():
        page, source = ROOT / name, RESULTS / record
        if not source.exists():
            print(f"{marker}: unchanged, there is no {source.relative_to(ROOT)}")
            continue
        page.write_text(fill(page.read_text(), marker, render(json.loads(source.read_text()))))
        print(f"{marker}: written to {name} from {source.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
