from __future__ import annotations

import numpy as np
import pytest

from serving.client import rest_values
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import TensorError


def test_bytes_become_base64_and_text_stays() -> None:
    values = np.array([["ä", b"\x89PNG"], ["", b""]], np.object_)
    assert rest_values.encode(values) == [["ä", {"b64": "iVBORw=="}], ["", {"b64": ""}]]


def test_a_dtype_without_a_json_form_is_refused() -> None:
    with pytest.raises(TensorError, match="complex64 has no JSON equivalent"):
        rest_values.encode(np.zeros(1, np.complex64))


def test_an_empty_batch_keeps_its_inner_axes() -> None:
    signature = pb.SignatureDef()
    for name, dtype in (("p", pb.DT_FLOAT), ("s", pb.DT_STRING)):
        signature.outputs[name].dtype = dtype
        for size in (-1, 8):
            signature.outputs[name].tensor_shape.dim.add(size=size)
    outputs = rest_values.decode_outputs({"p": [], "s": []}, signature)
    assert (outputs["p"].shape, outputs["p"].dtype) == ((0, 8), np.float32)
    assert (outputs["s"].shape, outputs["s"].dtype) == ((0, 8), np.object_)
