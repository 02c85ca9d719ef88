"""SavedModels of every kind that a server must support, written by TensorFlow itself.

half      TF1 graph with variables: y = x / 2 + 2, and Classify and Regress signatures that parse tf.Examples
pair      TF2 function, two inputs and two outputs: sum = a + b, product = a * b
text      strings in, strings out, and an output whose name ends in _bytes
scalar    rank 0 in, rank 0 out, and a signature whose outputs have different batch sizes
types     one signature per dtype, x -> y = x
examples  TF2 functions on serialized tf.Examples whose method_name is predict
defaults  y = x + bias; the signature has a default for bias
slow      sleeps for the given milliseconds, twice, and returns them
versioned returns its own version number
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow.python.data.experimental.ops.testing import sleep
from tensorflow_serving.apis import prediction_log_pb2

v1 = tf.compat.v1
signature_constants = v1.saved_model.signature_constants
CLASSIFY: Final = signature_constants.CLASSIFY_METHOD_NAME
REGRESS: Final = signature_constants.REGRESS_METHOD_NAME
PREDICT: Final = signature_constants.PREDICT_METHOD_NAME
DTYPES: Final = (
    *("float32", "float64", "float16", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64", "bool", "string", "complex64", "complex128"),
)
WARMUP_FILE: Final = Path("assets.extra", "tf_serving_warmup_requests")

Signatures = Mapping[str, meta_graph_pb2.SignatureDef]


def write_all(root: Path) -> None:
    """Write every model but `versioned` as root/NAME/VERSION."""
    _write_v1(root / "half" / "00000123", _half)
    _write_v1(root / "types" / "1", _types)
    _write_v1(root / "scalar" / "1", _scalar)
    _write_v1(root / "defaults" / "1", _defaults)
    _write_v1(root / "slow" / "1", _slow)
    pair = _Pair()
    tf.saved_model.save(pair, str(root / "pair" / "1"), signatures=pair.serve)
    text = _Text()
    tf.saved_model.save(text, str(root / "text" / "1"), signatures=text.serve)
    examples = _Examples()
    signatures = {"classify": examples.classify, "regress": examples.regress, "both": examples.both}
    tf.saved_model.save(examples, str(root / "examples" / "1"), signatures=signatures)


def write_slow(folder: Path, seconds: float) -> None:
    """Write a version of `slow` whose warm-up takes this long."""
    _write_v1(folder, _slow)
    log = prediction_log_pb2.PredictionLog()
    milliseconds = tf.make_tensor_proto(int(seconds * 1000), tf.int64)
    log.predict_log.request.inputs["milliseconds"].CopyFrom(milliseconds)
    log.predict_log.request.model_spec.name = "slow"
    write_warmup(folder, log)


def write_version(folder: Path, number: int) -> Path:
    """Atomically write a version of `versioned`: x of any shape -> the version number (a variable) in x's shape."""
    temporary = folder.parent / f"writing-{folder.name}"

    def build() -> Signatures:
        x = v1.placeholder(tf.float32, name="x")
        variable = v1.get_variable("number", initializer=tf.constant(number, tf.int64))
        y = tf.fill(tf.shape(x), variable)
        return {"serving_default": _signature({"x": x}, {"version": y})}

    _write_v1(temporary, build)
    temporary.rename(folder)
    return folder


def write_warmup(version: Path, *records: prediction_log_pb2.PredictionLog | bytes) -> None:
    path = version / WARMUP_FILE
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record if isinstance(record, bytes) else record.SerializeToString())


def copy_version(source: Path, target: Path) -> Path:
    """Copy a version atomically, as a correct deployment does."""
    temporary = target.parent / f"writing-{target.name}"
    shutil.copytree(source, temporary)
    return temporary.rename(target)


def _write_v1(folder: Path, build: Callable[[], Signatures]) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        signatures = build()
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.builder.SavedModelBuilder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()


def _signature(inputs: Mapping[str, Any], outputs: Mapping[str, Any], method: str = PREDICT) -> Any:
    def infos(tensors: Mapping[str, Any]) -> dict[str, Any]:
        return {alias: v1.saved_model.build_tensor_info(tensor) for alias, tensor in tensors.items()}

    return v1.saved_model.build_signature_def(infos(inputs), infos(outputs), method)


def _half() -> Signatures:
    a = v1.get_variable("a", initializer=0.5)
    b = v1.get_variable("b", initializer=2.0)
    x = v1.placeholder(tf.float32, [None, 1], name="x")
    y = tf.add(tf.multiply(a, x), b, name="y")
    serialized = v1.placeholder(tf.string, [None], name="tf_example")
    parsed = v1.io.parse_example(serialized, {"x": tf.io.FixedLenFeature([1], tf.float32)})["x"]
    value = a * parsed + b
    labels = tf.fill(tf.shape(value), "half")
    wide = tf.tile(value, [1, 3])
    inputs = {"inputs": serialized}
    return {
        "serving_default": _signature({"x": x}, {"y": y}),
        "regress": _signature(inputs, {"outputs": value}, REGRESS),
        "classify": _signature(inputs, {"classes": labels, "scores": value}, CLASSIFY),
        "classify_scores": _signature(inputs, {"scores": wide}, CLASSIFY),
        "classify_classes": _signature(inputs, {"classes": labels}, CLASSIFY),
        "classify_odd": _signature(inputs, {"classes": labels, "scores": wide}, CLASSIFY),
        "three_outputs": _signature(inputs, {"classes": labels, "scores": value, "other": value}, CLASSIFY),
        "classify_numbers": _signature(inputs, {"classes": value}, CLASSIFY),
        "classify_words": _signature(inputs, {"scores": labels}, CLASSIFY),
        "classify_double": _signature(inputs, {"scores": tf.cast(value, tf.float64)}, CLASSIFY),
        "regress_words": _signature(inputs, {"outputs": labels}, REGRESS),
        "other_input": _signature({"x": serialized}, {"outputs": value, "scores": value}, CLASSIFY),
        "other_output": _signature(inputs, {"y": value}, REGRESS),
        "two_inputs": _signature({"inputs": serialized, "x": x}, {"outputs": value}, REGRESS),
        "regress_wide": _signature(inputs, {"outputs": wide}, REGRESS),
    }


def _types() -> Signatures:
    signatures = {}
    for name in DTYPES:
        x = v1.placeholder(tf.dtypes.as_dtype(name), name=name)
        signatures[name] = _signature({"x": x}, {"y": tf.identity(x)})
    return signatures


def _scalar() -> Signatures:
    x = v1.placeholder(tf.float32, [], name="x")
    v = v1.placeholder(tf.float32, [None], name="v")
    return {
        "serving_default": _signature({"x": x}, {"y": x * x}),
        "uneven": _signature({"v": v}, {"all": v + 0.0, "first": v[:1]}),
    }


def _defaults() -> Signatures:
    x = v1.placeholder(tf.float32, [None], name="x")
    bias = v1.placeholder(tf.float32, [], name="bias")
    signature = _signature({"x": x, "bias": bias}, {"y": x + bias})
    signature.defaults["bias"].CopyFrom(tf.make_tensor_proto(10.0))
    return {"serving_default": signature}


def _slow() -> Signatures:
    """TensorFlow has no sleep operation, but a data set can sleep: before its only element and at its end."""
    milliseconds = v1.placeholder(tf.int64, [], name="milliseconds")
    data_set = tf.data.Dataset.range(1).apply(sleep(1000 * milliseconds))
    slept = data_set.reduce(tf.constant(0, tf.int64), lambda _, value: value)
    return {"serving_default": _signature({"milliseconds": milliseconds}, {"slept": slept + milliseconds})}


class _Pair(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = tf.Variable(1.0)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "a"), tf.TensorSpec([None], tf.float32, "b")])
    def serve(self, a: Any, b: Any) -> dict[str, Any]:
        return {"sum": (a + b) * self.one, "product": a * b}


class _Text(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec(None, tf.string, "s")])
    def serve(self, s: Any) -> dict[str, Any]:
        return {"upper": tf.strings.upper(s), "raw_bytes": tf.identity(s), "length": tf.strings.length(s)}


class _Examples(tf.Module):
    """TF2 writes method_name tensorflow/serving/predict for every signature."""

    def __init__(self) -> None:
        super().__init__()
        self.one = tf.Variable(1.0)

    def _values(self, inputs: Any) -> Any:
        return self.one * tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature([2], tf.float32)})["x"]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "inputs")])
    def classify(self, inputs: Any) -> dict[str, Any]:
        scores = self._values(inputs)
        labels = tf.tile([["first", "second"]], [tf.shape(scores)[0], 1])
        return {"classes": labels, "scores": scores}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "inputs")])
    def regress(self, inputs: Any) -> dict[str, Any]:
        return {"outputs": tf.reduce_sum(self._values(inputs), axis=1)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "inputs")])
    def both(self, inputs: Any) -> dict[str, Any]:
        return {"outputs": self._values(inputs), "extra": self._values(inputs)}
