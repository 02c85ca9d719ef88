"""TensorFlow Serving's request metrics, as Prometheus text."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final

from serving.model_server.refusals import Refusals

BUCKETS_US: Final = tuple(10 * 1.8**k for k in range(33))  # TensorFlow Serving's latency buckets, microseconds
COUNT: Final = ":tensorflow:serving:request_count"
COUNT_LABELS: Final = ("model_name", "status")
LATENCY: Final = ":tensorflow:serving:request_latency"
UNKNOWN: Final = "(unknown)"
LATENCY_LABELS: Final = ("model_name", "API", "entrypoint")
REFUSED: Final = ":mnist_tfx:serving:over_limit_count"  # only this server: requests refused or removed, by reason


class Metrics:
    """Thread-safe. Replaces Prometheus' client library, which rejects TensorFlow's names with a leading colon.

    Args:
        known: whether a name is that of a model. All other names are one series, or clients could add any
            number.
        refusals: counters of what was over a limit.
    """

    def __init__(self, known: Callable[[str], bool] = bool, refusals: Refusals | None = None) -> None:
        self._known = known
        self._lock = threading.Lock()
        self._refusals = refusals or Refusals()
        self._counts: dict[tuple[str, ...], int] = defaultdict(int)
        self._latencies: dict[tuple[str, ...], list[float]] = defaultdict(lambda: [0.0] * (len(BUCKETS_US) + 2))

    def request(self, model: str, api: str, entrypoint: str, code: str, latency_us: float) -> None:
        """Count a finished request. Latency is recorded for successful ones only, as in TensorFlow Serving."""
        model = model if self._known(model) else UNKNOWN
        with self._lock:
            self._counts[model, code] += 1
            if code == "OK":
                series = self._latencies[model, api, entrypoint]  # one count per bucket, then overflow, then sum
                series[bisect_left(BUCKETS_US, latency_us)] += 1
                series[-1] += latency_us

    def text(self) -> str:
        """Return all metrics in Prometheus' text format, with `# TYPE` but no HELP lines, like TensorFlow Serving."""
        with self._lock:
            counts = dict(self._counts)
            latencies = {key: list(series) for key, series in self._latencies.items()}
        lines = [f"# TYPE {COUNT} counter"] if counts else []
        lines += [f"{COUNT}{_labels(zip(COUNT_LABELS, key, strict=True))} {n}" for key, n in counts.items()]
        refused = self._refusals.counts()
        lines += [f"# TYPE {REFUSED} counter"] if refused else []
        lines += [f"{REFUSED}{_labels([('reason', reason)])} {n}" for reason, n in sorted(refused.items())]
        lines += [f"# TYPE {LATENCY} histogram"] if latencies else []
        for key, (*buckets, total_us) in latencies.items():
            labels = list(zip(LATENCY_LABELS, key, strict=True))
            total = 0.0
            for bound, found in zip((*(f"{b:g}" for b in BUCKETS_US), "+Inf"), buckets, strict=True):
                total += found
                lines.append(f"{LATENCY}_bucket{_labels([*labels, ('le', bound)])} {total:g}")
            lines.append(f"{LATENCY}_sum{_labels(labels)} {total_us:g}")
            lines.append(f"{LATENCY}_count{_labels(labels)} {total:g}")
        return "\n".join(lines) + "\n"


def _labels(labels: Iterable[tuple[str, str]]) -> str:
    escaped = ((key, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for key, value in labels)
    return "{" + ",".join(f'{key}="{value}"' for key, value in escaped) + "}"
