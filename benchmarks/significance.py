"""Simulate what the gate decides with gate.significance = 0.05 about equal models, and about worse ones.

    python -m benchmarks.significance      (ten seconds)

A pair of models classifies the same test images. Each image has a difficulty that both models share, so that their
errors are correlated as those of two trainings are. The gate decides by its own code. Beside the share of models that
it refuses is the theoretical one: the power of McNemar's exact test, by enumeration. Writes
build/bench_significance.json.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks import harness
from components.common.settings import GateSettings
from components.validation.gate import ACCURACY, COUNT, checks
from components.validation.significance import allowed_loss, paired, wilson
from components.validation.verdict import OVERALL

RESULT: Final = "bench_significance.json"
LEVEL: Final = 0.05
PAIRS: Final = 1000
# Of two models' scores for an image. Two thirds of their errors are then common, as of two default trainings, which
# differ on 0.9 % of the test images at an accuracy of 0.987.
CORRELATION: Final = 0.94
Floats = npt.NDArray[np.float64]


class Case(NamedTuple):
    """Pairs of models: their true accuracies, and the number of test images."""

    baseline: float
    candidate: float
    images: int


CASES: Final = [
    Case(accuracy, round(accuracy - loss, 4), images)
    for images, losses in ((10_000, (0.0, 0.002, 0.003, 0.01)), (1_000, (0.0, 0.01)))
    for accuracy in (0.96, 0.981)
    for loss in losses
]


def simulate(case: Case, generator: np.random.Generator) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Whether the baseline and the candidate classify each image correctly, bool [images] each."""
    difficulty = generator.standard_normal(case.images)
    rights = []
    for accuracy in (case.baseline, case.candidate):
        own = generator.standard_normal(case.images)
        score = math.sqrt(CORRELATION) * difficulty + math.sqrt(1 - CORRELATION) * own  # standard normal
        rights.append(score < NormalDist().inv_cdf(accuracy))
    return rights[0], rights[1]


def refused(case: Case, generator: np.random.Generator) -> tuple[bool, int]:
    """Whether the gate refuses the candidate of one pair, and on how many images only one of the two is right."""
    labels = generator.integers(0, 10, case.images)
    before, now = (np.where(right, labels, (labels + 1) % 10) for right in simulate(case, generator))
    against = paired(labels, before, now)
    candidate, baseline = (
        {OVERALL: {ACCURACY: float(np.mean(one == labels)), COUNT: float(case.images)}} for one in (now, before)
    )
    *_, check = checks(GateSettings(significance=LEVEL), candidate, baseline, set(), against)
    return not check.passed, against.worse + against.better


def theoretical(case: Case) -> float:
    """The probability that McNemar's exact test at LEVEL rejects: summed over all numbers of discordant images."""
    worse, better = discordant(case)
    chance = worse / (worse + better)
    mean, deviation = case.images * (worse + better), math.sqrt(case.images * (worse + better))
    counts = range(max(1, int(mean - 8 * deviation)), int(mean + 8 * deviation))
    total = 0.0
    for count, weight in zip(counts, binomial(case.images, worse + better, np.array(counts)), strict=True):
        least = (allowed_loss(count, LEVEL) + count) // 2 + 1  # worse ones that are refused
        total += weight * binomial(count, chance, np.arange(least, count + 1)).sum()
    return float(total)


def discordant(case: Case) -> tuple[float, float]:
    """Probabilities that only the baseline, and only the candidate, is right about an image."""
    difficulty = np.linspace(-8, 8, 20_001)
    density = np.exp(-(difficulty**2) / 2) / np.exp(-(difficulty**2) / 2).sum()
    before, now = (wrong(difficulty, accuracy) for accuracy in (case.baseline, case.candidate))
    return float((density * (1 - before) * now).sum()), float((density * before * (1 - now)).sum())


def wrong(difficulty: Floats, accuracy: float) -> Floats:
    """The probability of an error on an image of each difficulty."""
    limit = NormalDist().inv_cdf(accuracy)
    z = (limit - math.sqrt(CORRELATION) * difficulty) / math.sqrt(1 - CORRELATION)
    return np.array([0.5 * math.erfc(one / math.sqrt(2)) for one in z])


def binomial(n: int, p: float, counts: npt.NDArray[np.int64]) -> Floats:
    """Probabilities of `counts` among n."""
    logs = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in counts.tolist()]
    probabilities: Floats = np.exp(np.array(logs) + counts * math.log(p) + (n - counts) * math.log1p(-p))
    return probabilities


def results(pairs: int) -> Iterator[dict[str, Any]]:
    for number, case in enumerate(CASES):
        generator = np.random.default_rng(number)
        found = [refused(case, generator) for _ in range(pairs)]
        count = sum(was_refused for was_refused, _ in found)
        yield {
            **case._asdict(),
            "pairs": pairs,
            "refused": count,
            "interval": [round(end, 4) for end in wilson(count, pairs)],
            "theoretical": round(theoretical(case), 4),
            "discordant": round(sum(number for _, number in found) / pairs / case.images, 4),
        }


def main() -> None:
    parser = harness.argument_parser(__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS, help="of models in each case; default: %(default)s")
    rows = []
    for row in results(parser.parse_args().pairs):
        rows.append(row)
        print(row, flush=True)
    harness.write_result(RESULT, {"level": LEVEL, "rows": rows})


if __name__ == "__main__":
    main()
