from __future__ import annotations

import numpy as np
import pytest

from components.versions.weights import weights_sha256

WEIGHTS = {"weights/0": np.arange(6, dtype=np.float32).reshape(2, 3), "biases/0": np.zeros(3, np.float32)}


def test_the_hash_does_not_depend_on_order_and_memory_layout() -> None:
    other = {name: np.asfortranarray(WEIGHTS[name]).astype(">f4") for name in reversed(WEIGHTS)}
    assert weights_sha256(other) == weights_sha256(WEIGHTS)


@pytest.mark.parametrize(
    "changed",
    [
        {"weights/0": WEIGHTS["weights/0"] + np.float32(1e-6)},
        {"weights/0": WEIGHTS["weights/0"].reshape(3, 2)},
        {"weights/0": WEIGHTS["weights/0"].astype(np.float64)},
        {"weights/1": np.zeros(0, np.float32)},
    ],
    ids=["value", "shape", "dtype", "name"],
)
def test_every_difference_changes_the_hash(changed: dict[str, np.ndarray]) -> None:
    assert weights_sha256(WEIGHTS | changed) != weights_sha256(WEIGHTS)
