"""The servers that serving_load.py compares, each a process: `python -m benchmarks.serving.servers KIND PORT`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc

from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import to_proto

PREDICT = "/tensorflow.serving.PredictionService/Predict"


async def noop(port: int) -> None:
    """A grpc.aio server that parses nothing and answers one constant: what any Python server here can reach."""
    import numpy as np

    answer = pb.PredictResponse()
    answer.outputs["probabilities"].CopyFrom(to_proto(np.zeros((1, 10), np.float32)))
    constant: bytes = answer.SerializeToString()

    async def handle(_: bytes, __: Any) -> bytes:
        return constant

    options = [("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]
    server = grpc.aio.server(options=options)
    handlers = {"Predict": grpc.unary_unary_rpc_method_handler(handle)}
    generic = grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", handlers)
    server.add_generic_rpc_handlers((generic,))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


def fastapi(port: int, model: Path) -> None:
    """What many write first: FastAPI around a loaded SavedModel's signature, JSON in and out."""
    import tensorflow as tf
    import uvicorn
    from fastapi import FastAPI

    signature = tf.saved_model.load(str(model)).signatures["serving_default"]

    app = FastAPI()

    @app.post("/predict")
    def predict(body: dict[str, Any]) -> dict[str, Any]:
        answer = signature(images=tf.constant(body["instances"], tf.uint8))
        return {"predictions": answer["probabilities"].numpy().tolist()}

    @app.get("/ready")
    def ready() -> str:
        return "ready"

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")


if __name__ == "__main__":
    kind, port_text, *rest = sys.argv[1:]
    if kind == "noop":
        asyncio.run(noop(int(port_text)))
    else:
        fastapi(int(port_text), Path(rest[0]))
