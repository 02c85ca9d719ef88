"""Attacks with single requests: reloads (A1), small requests that expand (A2, A6), failed requests that stay (A3)."""

from __future__ import annotations

import gzip
import threading
import time
from collections import Counter
from functools import partial
from typing import Any

import numpy as np

from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import to_proto
from tests.drills.server.probe import PREDICT, half_request, probing
from tests.drills.server.target import CLASSIFY, RELOAD, Target, low_priority, reload_request, repeated


def reloads(target: Target) -> dict[str, Any]:
    """A1: nine reloads that add models with empty folders, a name with a null byte, then a valid reload."""
    empty = target.models / "empty"
    empty.mkdir(exist_ok=True)
    half = ("half", str(target.models / "half"))
    threads = [
        threading.Thread(target=target.call, args=(RELOAD, reload_request(half, (f"e{n}", str(empty))), 3.0))
        for n in range(9)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    during = target.call(PREDICT, half_request(), 3.0)
    for thread in threads:
        thread.join()
    null = target.call(RELOAD, reload_request(half, ("null", "/x/\0y")), 3.0)
    valid = target.call(RELOAD, reload_request(half, ("text", str(target.models / "text"))), 20.0)
    return {"predict_during": during, "null_byte": null, "valid_reload_after": valid}


def expanding(target: Target) -> dict[str, Any]:
    """A2: requests of at most 30 KB on the wire that need gigabytes, one after the other."""
    long_string = b'{"instances": [' + b'"a",' * 50_000 + b'"' + b"x" * 10_000_000 + b'"]}'
    empty_examples = pb.ClassificationRequest(model_spec=pb.ModelSpec(name="examples", signature_name="classify"))
    head = empty_examples.SerializeToString()
    listed = b"\x0a\x00" * 10_000_000  # ten million empty examples
    examples = head + _field(2, _field(1, listed))
    strings = pb.PredictRequest(model_spec=pb.ModelSpec(name="text"))
    repeated(strings, "s", pb.DT_STRING, value=b"x" * 1000)
    outcomes = {
        "one long string among many": target.post("half:predict", gzip.compress(long_string), content_encoding="gzip"),
        "95 MB of strings in broken JSON": target.post("half:predict", b'{"a": "' + b'["' * 47_000_000),
        "ten million empty examples": target.call(CLASSIFY, examples, gzip=True),
        "one string fills [16384, 1024]": target.call(PREDICT, strings.SerializeToString()),
    }
    return {**outcomes, "predict_after": target.call(PREDICT, half_request(), 5.0)}


def failed(target: Target) -> dict[str, Any]:
    """A3: five bad bodies of 70 MB, and five of 14 MB; the memory that the server keeps."""
    target.post("half:predict", b'{"instances": [' + b"1.5," * 10_000 + b"]")  # starts the process that decodes
    before_mb = target.memory_mb()
    bad = [b'{"instances": [' + b"1.5," * count + b"]" for count in (17_500_000, 3_500_000)]
    codes = [target.post("half:predict", body, 60.0) for body in bad for _ in range(5)]
    time.sleep(1)
    return {"codes": codes, "kept_mb": round(target.memory_mb() - before_mb)}


def held(target: Target) -> dict[str, Any]:
    """A6: requests that hold the interpreter or the event loop, seven at a time, while a client asks for the status."""
    zipped = gzip.compress(b'{"instances": [' + b"1," * 20_000_000 + b"1]}")
    features = (
        b'{"signature_name": "classify", "examples": [{' + b",".join(b'"%d":1' % n for n in range(2_000_000)) + b"}]}"
    )
    strings = pb.PredictRequest(model_spec=pb.ModelSpec(name="text"))
    repeated(strings, "s", pb.DT_STRING, value=b"x")
    complexes = pb.PredictRequest(model_spec=pb.ModelSpec(name="types", signature_name="complex128"))
    repeated(complexes, "x", pb.DT_COMPLEX128)
    filled = pb.PredictRequest(model_spec=pb.ModelSpec(name="types", signature_name="float64"))
    repeated(filled, "x", pb.DT_DOUBLE, (1, 2**21))
    dense = pb.PredictRequest(model_spec=pb.ModelSpec(name="types", signature_name="float32"))
    dense.inputs["x"].CopyFrom(to_proto(np.ones((1, 4_000_000), np.float32), content=True))
    sends = [
        lambda: target.post("half:predict", zipped, 20.0, content_encoding="gzip"),
        lambda: target.post("examples:classify", features, 20.0),
        lambda: target.call(PREDICT, strings.SerializeToString(), 20.0),
        lambda: target.call(PREDICT, complexes.SerializeToString(), 20.0),
        lambda: target.call(PREDICT, filled.SerializeToString(), 20.0),
        lambda: target.call(PREDICT, dense.SerializeToString(), 20.0),
        lambda: target.post("half:predict", b'{"instances": [' + b"[1.5]," * 800_000 + b"[1]]}", 20.0),
    ]
    found: Counter[str] = Counter()

    def attack(index: int) -> None:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            found[sends[index % len(sends)]()] += 1

    with probing(target.port, target.rest_port) as probe:
        threads = [low_priority(partial(attack, n)) for n in range(len(sends))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return {"codes": dict(found), "well_behaved": probe}


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field of a message."""
    size, encoded = len(content), bytearray([number << 3 | 2])
    while size > 0x7F:
        encoded.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(encoded) + bytes([size]) + content
