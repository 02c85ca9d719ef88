"""The servers that the embedded server is compared with, one per process.

    python -m benchmarks.serving.servers noop|fastapi PORT [MODEL]

`benchmarks.serving.load` starts them.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks.harness import HOST
from components.common import contract
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import to_proto


async def noop(port: int) -> None:
    """A grpc.aio server that parses nothing and returns a constant: the upper bound for a Python server."""
    response = pb.PredictResponse()
    response.outputs[contract.PROBABILITIES].CopyFrom(to_proto(np.zeros((1, 10), np.float32)))
    constant: bytes = response.SerializeToString()

    async def handle(_: bytes, __: Any) -> bytes:
        return constant

    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)])
    handlers = {"Predict": grpc.unary_unary_rpc_method_handler(handle)}
    generic = grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", handlers)
    server.add_generic_rpc_handlers((generic,))
    server.add_insecure_port(f"{HOST}:{port}")
    await server.start()
    await server.wait_for_termination()


def fastapi(port: int, model: Path) -> None:
    """A typical first service: FastAPI around a loaded SavedModel's signature, JSON in and out."""
    import tensorflow as tf
    import uvicorn
    from fastapi import FastAPI

    signature = tf.saved_model.load(str(model)).signatures[contract.SERVING_DEFAULT]

    app = FastAPI()

    @app.post("/predict")
    def predict(body: dict[str, Any]) -> dict[str, Any]:
        outputs = signature(images=tf.constant(body["instances"], tf.uint8))
        return {"predictions": outputs["probabilities"].numpy().tolist()}

    uvicorn.run(app, host=HOST, port=port, log_level="error")


if __name__ == "__main__":
    kind, port_text, *rest = sys.argv[1:]
    if kind == "noop":
        asyncio.run(noop(int(port_text)))
    else:
        fastapi(int(port_text), Path(rest[0]))
