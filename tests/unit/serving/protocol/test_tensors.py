"""This project's messages compared with the official ones in TensorFlow and tensorflow-serving-api."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.protobuf import saved_model_pb2  # noqa: F401  # registers SavedModel
from tensorflow_serving.apis import (  # imported for their registration
    get_model_metadata_pb2,  # noqa: F401
    get_model_status_pb2,  # noqa: F401
    model_management_pb2,  # noqa: F401
    predict_pb2,
    prediction_log_pb2,  # noqa: F401
)

from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import TensorError, from_proto, to_proto

NUMERIC = [
    *(np.float32, np.float64, np.float16, np.complex64, np.complex128, np.bool_),
    *(np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64),
]
SHAPES = npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
# Without NaN: TensorFlow's Python converts single values to float, which makes a signalling NaN a quiet one.
NUMBERS = st.sampled_from(NUMERIC).flatmap(
    lambda dtype: npst.arrays(dtype, SHAPES, elements=npst.from_dtype(np.dtype(dtype), allow_nan=False))
)
STRINGS = npst.arrays(np.object_, SHAPES, elements=st.binary(max_size=5) | st.text(max_size=5))


def as_bytes(strings: np.ndarray) -> np.ndarray:
    flat = np.empty(strings.size, np.object_)
    flat[:] = [s.encode() if isinstance(s, str) else s for s in strings.ravel()]
    return flat.reshape(strings.shape)


def serialized(proto: Any) -> bytes:
    # An absent shape and an empty one both mean a scalar; TensorFlow writes the empty one.
    proto.tensor_shape.SetInParent()
    value: bytes = proto.SerializeToString(deterministic=True)
    return value


@given(NUMBERS, st.booleans())
def test_numbers_survive_a_round_trip_through_either_encoding(array: np.ndarray, content: bool) -> None:
    again = from_proto(pb.TensorProto.FromString(to_proto(array, content=content).SerializeToString()))
    assert again.dtype == array.dtype
    np.testing.assert_array_equal(again, array, strict=True)


@given(STRINGS, st.booleans())
def test_strings_survive_a_round_trip_as_bytes(strings: np.ndarray, content: bool) -> None:
    again = from_proto(to_proto(strings, content=content))
    np.testing.assert_array_equal(again, as_bytes(strings), strict=True)


@given(st.sampled_from([np.float16, np.float32, np.float64]), st.booleans())
def test_nan_and_infinity_survive(dtype: type[np.floating[Any]], content: bool) -> None:
    array = np.array([np.nan, np.inf, -np.inf, -0.0], dtype)
    again = from_proto(to_proto(array, content=content))
    np.testing.assert_array_equal(again, array, strict=True)
    assert np.signbit(again[3])


@given(NUMBERS)
def test_numbers_become_the_same_bytes_as_in_tensorflow(array: np.ndarray) -> None:
    # TensorFlow's Python puts single values and booleans into the typed field, most others into tensor_content.
    theirs = tf.make_tensor_proto(array)
    assert serialized(to_proto(array, content=bool(theirs.tensor_content))) == serialized(theirs)


@given(STRINGS)
def test_strings_become_the_same_bytes_as_in_tensorflow(strings: np.ndarray) -> None:
    theirs = tf.make_tensor_proto(as_bytes(strings), tf.string, strings.shape)
    assert serialized(to_proto(strings)) == serialized(theirs)


@given(NUMBERS | STRINGS, st.booleans())
def test_each_side_reads_what_the_other_writes(array: np.ndarray, content: bool) -> None:
    if array.dtype == np.object_:
        array = as_bytes(array)
    theirs = tf.make_ndarray(TensorProto.FromString(to_proto(array, content=content).SerializeToString()))
    np.testing.assert_array_equal(theirs, array)
    assert theirs.shape == array.shape
    ours = from_proto(pb.TensorProto.FromString(tf.make_tensor_proto(array).SerializeToString()))
    np.testing.assert_array_equal(ours, array)
    assert ours.shape == array.shape


@given(st.sampled_from([d for d in NUMERIC if np.dtype(d).kind != "c"]), SHAPES, st.data())
@settings(deadline=None)  # the first call into TensorFlow starts its kernels
def test_missing_values_are_filled_as_in_tensorflow(
    dtype: type[np.generic], shape: tuple[int, ...], data: st.DataObject
) -> None:
    proto = to_proto(np.ones(data.draw(st.integers(0, int(np.prod(shape)))), dtype))
    del proto.tensor_shape.dim[:]
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    theirs = tf.io.parse_tensor(proto.SerializeToString(), tf.as_dtype(dtype)).numpy()
    np.testing.assert_array_equal(from_proto(proto), theirs)


@pytest.mark.parametrize(
    "proto",
    [
        pb.TensorProto(dtype=pb.DT_FLOAT, float_val=[1, 2]),
        pb.TensorProto(dtype=pb.DT_FLOAT, tensor_content=b"123"),
        pb.TensorProto(dtype=pb.DT_RESOURCE),
        pb.TensorProto(dtype=99),  # type: ignore[arg-type]
        pb.TensorProto(),
        pb.TensorProto(dtype=pb.DT_FLOAT, tensor_shape=pb.TensorShapeProto(unknown_rank=True)),
        pb.TensorProto(dtype=pb.DT_FLOAT, tensor_shape={"dim": [{"size": -1}]}),
        pb.TensorProto(dtype=pb.DT_FLOAT, tensor_shape={"dim": [{"size": 2**62}, {"size": 4}]}),
        pb.TensorProto(dtype=pb.DT_FLOAT, tensor_shape={"dim": [{"size": 0}, {"size": 2**62}, {"size": 2**62}]}),
        *(
            pb.TensorProto(dtype=dtype, tensor_shape={"dim": [{"size": 1}] * 65})
            for dtype in (pb.DT_FLOAT, pb.DT_STRING)
        ),
        pb.TensorProto(dtype=pb.DT_INT8, tensor_shape={"dim": [{"size": 1}] * 65}, tensor_content=b"1"),
    ],
)
def test_inconsistent_messages_are_rejected(proto: pb.TensorProto) -> None:
    with pytest.raises(TensorError):
        from_proto(proto)


def test_an_odd_complex_value_is_ignored_as_in_tensorflow() -> None:
    content = pb.TensorProto(dtype=pb.DT_COMPLEX64, tensor_shape={"dim": [{"size": 1}]}, scomplex_val=[1, 2, 3])
    expected = tf.make_ndarray(TensorProto.FromString(content.SerializeToString()))
    np.testing.assert_array_equal(from_proto(content), expected, strict=True)


@pytest.mark.parametrize(
    "values", [np.array(["2020-01-01"], "M8[D]"), np.zeros(2, "i4,f4"), np.zeros(1, np.longdouble)]
)
def test_dtypes_without_a_data_type_are_refused(values: np.ndarray) -> None:
    with pytest.raises(TensorError, match="has no TensorProto equivalent"):
        to_proto(values)


# ---- every message of serving.proto ----

# tensorflow-serving-api does not have these. They are read as text only, so names matter and numbers do not.
NOT_SHIPPED = {
    "PrometheusConfig": {1: ("enable", "bool"), 2: ("path", "string")},
    "MonitoringConfig": {1: ("prometheus_config", "message")},
    "BatchingParameters": {
        1: ("max_batch_size", "message"),
        2: ("batch_timeout_micros", "message"),
        3: ("max_enqueued_batches", "message"),
        4: ("num_batch_threads", "message"),
        5: ("thread_pool_name", "message"),
        6: ("allowed_batch_sizes", "int64"),
        7: ("pad_variable_length_inputs", "bool"),
        8: ("enable_large_batch_splitting", "message"),
        9: ("max_execution_batch_size", "message"),
    },
}
# The official fields are enums, these are int32: they have the same encoding, but int32 accepts unknown numbers.
WIRE_TYPES = {FieldDescriptor.TYPE_ENUM: FieldDescriptor.TYPE_INT32}


def all_messages() -> list[Descriptor]:
    def below(message: Descriptor) -> list[Descriptor]:
        return [message, *(found for nested in message.nested_types for found in below(nested))]

    return [found for message in pb.DESCRIPTOR.message_types_by_name.values() for found in below(message)]


def local_name(message: Any) -> str:
    """Return a message's name without its package; the official ones are in two packages."""
    name: str = message.full_name
    for package in ("mnist_tfx.serving.", "tensorflow.serving.", "tensorflow."):
        name = name.removeprefix(package)
    return name


def official(name: str) -> Descriptor:
    pool = descriptor_pool.Default()
    for package in ("tensorflow.", "tensorflow.serving."):
        try:
            return pool.FindMessageTypeByName(package + name)
        except KeyError:
            pass
    raise AssertionError(f"no official message {name}")


MESSAGES = {local_name(message): message for message in all_messages()}


def test_all_messages_are_found() -> None:
    assert len(MESSAGES) > 55
    assert set(NOT_SHIPPED) <= set(MESSAGES)


@pytest.mark.parametrize("name", [name for name in MESSAGES if name not in NOT_SHIPPED])
def test_a_message_is_a_subset_of_the_official_one(name: str) -> None:
    theirs = official(name).fields_by_number
    for field in MESSAGES[name].fields:
        assert field.number in theirs, f"{field.full_name} = {field.number} is not official"
        other = theirs[field.number]
        assert field.name == other.name  # REST bodies contain the names
        assert WIRE_TYPES.get(field.type, field.type) == WIRE_TYPES.get(other.type, other.type)
        assert field.is_repeated == other.is_repeated
        assert field.is_packed == other.is_packed
        assert (field.containing_oneof and field.containing_oneof.name) == (
            other.containing_oneof and other.containing_oneof.name
        )
        if field.message_type is not None:
            assert local_name(field.message_type) == local_name(other.message_type)
        if field.enum_type is not None:
            numbers = {value.name: value.number for value in other.enum_type.values}
            assert {value.name: value.number for value in field.enum_type.values}.items() <= numbers.items()


@pytest.mark.parametrize("name", NOT_SHIPPED)
def test_a_message_that_is_not_shipped_is_as_documented(name: str) -> None:
    types = {
        FieldDescriptor.TYPE_BOOL: "bool",
        FieldDescriptor.TYPE_STRING: "string",
        FieldDescriptor.TYPE_INT64: "int64",
    }
    fields = {f.number: (f.name, types.get(f.type, "message")) for f in MESSAGES[name].fields}
    assert fields == NOT_SHIPPED[name]


def test_a_request_has_the_same_bytes_in_either_form_and_unknown_fields_survive() -> None:
    theirs = predict_pb2.PredictRequest(output_filter=["y"])
    theirs.model_spec.name = "m"
    theirs.model_spec.version.value = 0  # present, though zero
    theirs.model_spec.signature_name = "s"
    theirs.inputs["x"].CopyFrom(tf.make_tensor_proto([[1.5, 2.5]]))
    theirs.inputs["a"].CopyFrom(tf.make_tensor_proto(["text"]))
    theirs.inputs["v"].variant_val.add(type_name="not in our messages")
    there = theirs.SerializeToString(deterministic=True)
    ours = pb.PredictRequest.FromString(there)
    assert ours.model_spec.HasField("version")
    assert from_proto(ours.inputs["x"]).tolist() == [[1.5, 2.5]]
    assert predict_pb2.PredictRequest.FromString(ours.SerializeToString()) == theirs
