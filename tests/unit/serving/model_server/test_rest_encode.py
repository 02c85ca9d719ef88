"""REST response bodies; test_rest_decode.py tests that every value survives a round trip."""

from __future__ import annotations

import numpy as np
import pytest

from serving.model_server.errors import Code, ServingError
from serving.model_server.rest_encode import encoded, predict_response


def test_outputs_without_rows_are_refused_by_row_only() -> None:
    assert predict_response({"y": np.float32(0.1) * np.ones(())}, row=False) == {"outputs": pytest.approx(0.1)}
    with pytest.raises(ServingError, match="Tensor name: y has no shape information"):
        predict_response({"y": np.ones(())}, row=True)


@pytest.mark.parametrize("dtype", [np.float16, np.complex64, np.uint16])
def test_dtypes_without_a_json_equivalent(dtype: type) -> None:
    with pytest.raises(ServingError, match="Failed to write JSON value for tensor type: ") as caught:
        predict_response({"y": np.ones(1, dtype)}, row=True)
    assert caught.value.code == Code.INVALID_ARGUMENT


def test_float32_has_the_fewest_digits_and_nan_is_unquoted() -> None:
    body = encoded(predict_response({"y": np.array([0.1, np.nan, -np.inf], np.float32)}, row=True))
    assert body == b'{\n    "predictions": [0.1, NaN, -Infinity]\n}'
