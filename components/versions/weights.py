"""A hash of a model's weights: equal for equal values, whatever file contains them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt


def weights_sha256(named_arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """SHA-256 over the arrays in the order of their names: name (UTF-8), dtype, shape, bytes (C order).

    The names are those of `MLP.named_weights`: "weights/0" [fan_in, fan_out], "biases/0" [fan_out], and so on. In a
    pushed version's variables they are the checkpoint keys `model/<name>/.ATTRIBUTES/VARIABLE_VALUE`.
    """
    digest = hashlib.sha256()
    for name, values in sorted(named_arrays.items()):
        array = np.asarray(values)
        digest.update(f"{name}\0{array.dtype.newbyteorder('<').str}\0{array.shape}\0".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()
