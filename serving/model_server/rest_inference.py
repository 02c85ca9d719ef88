"""Inference over REST: decodes a body, runs the model and encodes the response, large ones in another process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from serving.model_server import codec, data_plane, rest_decode
from serving.model_server.codec import Body
from serving.model_server.codec_pool import CodecPool
from serving.model_server.limits import LARGE_BYTES, Ticket
from serving.model_server.rest_decode import PredictBody
from serving.model_server.rest_encode import encoded, shortest
from serving.model_server.servable import Servable
from serving.model_server.service import Service
from serving.model_server.workers import Workers
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import Array, array_bytes


class RestInference:
    """Executes predict, classify and regress. All methods may raise ServingError.

    Args:
        workers: threads that run the service's blocking calls.
        codecs: decode large requests and encode large responses.
    """

    def __init__(self, service: Service, workers: Workers, codecs: CodecPool) -> None:
        self._service, self._workers, self._codecs = service, workers, codecs

    async def run(self, method: str, spec: pb.ModelSpec, body: Body, ticket: Ticket) -> bytes:
        """Return the encoded JSON of a response."""
        if method == "predict":
            return await self._predict(spec, body, ticket)
        run = self._run_classify if method == "classify" else self._run_regress
        return await self._infer(spec, body, ticket, run)

    async def _predict(self, spec: pb.ModelSpec, body: Body, ticket: Ticket) -> bytes:
        if not body.is_large():
            outputs, row, content = await self._workers.run(partial(self._decode_and_run, spec, body, ticket), ticket)
        else:
            with self._service.manager.use(spec) as servable:
                decode = partial(codec.decode_rest_predict, body, servable.inputs())
                name, decoded = await self._codecs.run(decode, ticket)
                run = partial(self._run_predict, servable, ticket, name, decoded)
                outputs, row, content = await self._workers.run(run, ticket)
        if content is None:
            content = (await self._codecs.run(partial(codec.encode_rest_predict, outputs, row), ticket)).joined()
        return content

    def _decode_and_run(
        self, spec: pb.ModelSpec, body: Body, ticket: Ticket
    ) -> tuple[Mapping[str, Array], bool, bytes | None]:
        document = rest_decode.parse(body.unpacked())
        with self._service.manager.use(spec) as servable:
            name, decoded = codec.predict_document(document, servable.signatures())
            return self._run_predict(servable, ticket, name, decoded)

    def _run_predict(
        self, servable: Servable, ticket: Ticket, name: str, decoded: PredictBody
    ) -> tuple[Mapping[str, Array], bool, bytes | None]:
        """Return the outputs, whether they are rows, and them encoded; None if encoding them would take too long."""
        signature = servable.signature(name)
        assert signature is not None
        self._service.account(ticket, pb.PredictRequest(), decoded.inputs.values())
        outputs = servable.predict(signature, decoded.inputs, [], ticket.remaining_ms())
        size_bytes = sum(map(array_bytes, outputs.values()))
        if size_bytes < LARGE_BYTES:
            return {}, decoded.row, codec.encode_rest_predict(outputs, decoded.row).joined()
        ticket.grow(size_bytes)
        return outputs, decoded.row, None

    async def _infer(
        self, spec: pb.ModelSpec, body: Body, ticket: Ticket, run: Callable[[pb.ModelSpec, Ticket, str, Array], bytes]
    ) -> bytes:
        decode = partial(codec.decode_rest_examples, body, self._service.admission.limits.tensor_bytes)
        if not body.is_large():
            return await self._workers.run(lambda: run(spec, ticket, *decode()), ticket)
        decoded = await self._codecs.run(decode, ticket)
        return await self._workers.run(partial(run, spec, ticket, *decoded), ticket)

    def _run_classify(self, spec: pb.ModelSpec, ticket: Ticket, signature_name: str, examples: Array) -> bytes:
        spec.signature_name = signature_name
        request = pb.ClassificationRequest(model_spec=spec)
        self._service.account(ticket, request, (examples,))
        with self._service.manager.use(spec) as servable:
            result = data_plane.classify(servable, request, ticket.remaining_ms(), examples).result
        rows = [
            list(zip([c.label for c in row.classes], shortest([c.score for c in row.classes]), strict=True))
            for row in result.classifications
        ]
        return encoded({"results": rows})

    def _run_regress(self, spec: pb.ModelSpec, ticket: Ticket, signature_name: str, examples: Array) -> bytes:
        spec.signature_name = signature_name
        request = pb.RegressionRequest(model_spec=spec)
        self._service.account(ticket, request, (examples,))
        with self._service.manager.use(spec) as servable:
            result = data_plane.regress(servable, request, ticket.remaining_ms(), examples).result
        return encoded({"results": shortest([regression.value for regression in result.regressions])})
