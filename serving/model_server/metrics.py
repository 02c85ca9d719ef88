"""Counters under TensorFlow Serving's names, as Prometheus text."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from typing import Final

BUCKETS_US: Final = tuple(10 * 1.8**k for k in range(33))  # TensorFlow Serving's latency buckets, microseconds
Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Thread-safe. TensorFlow's names begin with a colon, which client libraries refuse, hence the text by hand."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[str, dict[Labels, float]] = defaultdict(lambda: defaultdict(float))
        self._histograms: dict[str, dict[Labels, list[float]]] = defaultdict(dict)  # per bucket, then overflow, sum

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        with self._lock:
            self._counters[name][tuple(labels.items())] += amount

    def observe(self, name: str, value_us: float, **labels: str) -> None:
        with self._lock:
            series = self._histograms[name].setdefault(tuple(labels.items()), [0.0] * (len(BUCKETS_US) + 2))
            series[bisect_left(BUCKETS_US, value_us)] += 1
            series[-1] += value_us

    def request(self, model: str, api: str, entrypoint: str, code: str, latency_us: float) -> None:
        """One finished request of any layer; latency is kept for the successful ones, as TensorFlow Serving does."""
        self.count(":tensorflow:serving:request_count", model_name=model, status=code)
        if code == "OK":
            self.observe(
                ":tensorflow:serving:request_latency", latency_us, model_name=model, API=api, entrypoint=entrypoint
            )

    def text(self) -> str:
        """Everything in Prometheus' text format: `# TYPE` lines only, no HELP, as TensorFlow Serving prints it."""
        lines = []
        with self._lock:
            for name, counters in sorted(self._counters.items()):
                lines.append(f"# TYPE {name} counter")
                lines += [f"{name}{{{_labels(labels)}}} {value:g}" for labels, value in counters.items()]
            for name, histograms in sorted(self._histograms.items()):
                lines.append(f"# TYPE {name} histogram")
                for labels, series in histograms.items():
                    total = 0.0
                    for bound, found in zip((*(f"{b:g}" for b in BUCKETS_US), "+Inf"), series[:-1], strict=True):
                        total += found
                        lines.append(f"{name}_bucket{{{_labels((*labels, ('le', bound)))}}} {total:g}")
                    lines.append(f"{name}_sum{{{_labels(labels)}}} {series[-1]:g}")
                    lines.append(f"{name}_count{{{_labels(labels)}}} {total:g}")
        return "\n".join(lines) + "\n"


def _labels(labels: Labels) -> str:
    escaped = ((key, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for key, value in labels)
    return ",".join(f'{key}="{value}"' for key, value in escaped)
