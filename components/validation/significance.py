"""Whether a difference between two evaluations is more than chance. No SciPy: importing it takes seconds."""

from __future__ import annotations

import bisect
import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Paired(NamedTuple):
    """How the predictions of two models for the same examples differ.

    Attributes:
        worse: examples that only the first model classifies correctly.
        better: examples that only the second model classifies correctly.
        p_worse: probability of so many worse ones, or more, if both models were equally good, 0..1 (one-sided).
        p_different: probability of a difference so large in either direction, 0..1 (two-sided).
    """

    worse: int
    better: int
    p_worse: float
    p_different: float


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The score interval of a proportion (E. B. Wilson, JASA 22, 1927); (0, 1) if n is 0.

    Args:
        successes: 0..n.
        level: probability with which such an interval covers the true proportion, between 0 and 1.
    """
    if not n:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    p, scale = successes / n, 1 + z * z / n
    center = (p + z * z / (2 * n)) / scale
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / scale
    # The ends are exact at 0 and n successes; rounding may move them past p.
    return max(0.0, min(p, center - half)), min(1.0, max(p, center + half))


def mcnemar(worse: int, better: int) -> float:
    """McNemar's exact one-sided p-value (Q. McNemar, Psychometrika 12, 1947), 0..1.

    Only examples that one of the two models gets right count. If the models are equally good, each of these is worse
    or better with probability 1/2, whatever the accuracy and the correlation of the models: a binomial tail. The exact
    test never rejects equal models more often than its level; the mid-p variant can.
    """
    n = worse + better
    log_all = math.lgamma(n + 1) - n * math.log(2)
    terms = (math.exp(log_all - math.lgamma(k + 1) - math.lgamma(n - k + 1)) for k in range(worse, n + 1))
    return min(1.0, math.fsum(terms))


def allowed_loss(discordant: int, level: float) -> int:
    """The largest `worse - better` that is not beyond chance: `mcnemar(worse, better) > level`.

    Args:
        discordant: worse + better.
    """
    beyond = bisect.bisect_left(
        range(discordant + 1), True, key=lambda worse: mcnemar(worse, discordant - worse) <= level
    )
    return 2 * (beyond - 1) - discordant


def paired(labels: npt.NDArray[np.int64], a_classes: npt.NDArray[np.int64], b_classes: npt.NDArray[np.int64]) -> Paired:
    """Compare a second model `b` (the candidate) with a first `a` (the baseline) on the same examples.

    Args:
        labels, a_classes, b_classes: integers [n], in the same order.
    """
    a_right, b_right = a_classes == labels, b_classes == labels
    worse, better = int(np.sum(a_right & ~b_right)), int(np.sum(b_right & ~a_right))
    p_worse, p_better = mcnemar(worse, better), mcnemar(better, worse)
    return Paired(worse, better, p_worse, min(1.0, 2 * min(p_worse, p_better)))
