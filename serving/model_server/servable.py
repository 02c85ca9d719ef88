"""One loaded version of a model: its signatures, and how to run them on arrays."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from serving.model_server.capi import Session, TensorFlowError
from serving.model_server.errors import Code, ServingError, invalid
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import Array, from_proto

DEFAULT_SIGNATURE: Final = "serving_default"


@dataclass(frozen=True)
class Endpoint:
    """An input or output of a signature, and its place in the graph."""

    tensor_name: str
    info: pb.TensorInfo
    place: tuple[int, int]


@dataclass(frozen=True)
class Signature:
    """A SignatureDef whose tensors were found in the graph."""

    name: str
    inputs: Mapping[str, Endpoint]
    outputs: Mapping[str, Endpoint]
    defaults: Mapping[str, Array]


class Servable:
    """A SavedModel in memory.

    Args:
        name, version: name of the model, and version number.
        folder: folder of the version.
        tags, config: as for capi.Session.
        max_batch_size: maximum number of rows in an input; 0 for no limit (without --enable_batching).

    Raises:
        TensorFlowError: the SavedModel does not load.
    """

    def __init__(
        self,
        name: str,
        version: int,
        folder: Path,
        tags: Sequence[str] = ("serve",),
        config: bytes = b"",
        max_batch_size: int = 0,
    ) -> None:
        self.name, self.version, self.folder, self.max_batch_size = name, version, folder, max_batch_size
        self._session = Session(folder, tags, config)
        self.signature_defs: Mapping[str, pb.SignatureDef] = dict(self._session.meta_graph.signature_def)
        self._signatures: dict[str, Signature] = {}
        self._idle = threading.Condition()
        self._in_flight = 0
        self._retired = False

    def signature(self, name: str) -> Signature | None:
        """Return the signature with this name ("" for the default); None if the model does not have it."""
        name = name or DEFAULT_SIGNATURE
        if name not in self._signatures and name in self.signature_defs:
            self._signatures[name] = self._resolve(name, self.signature_defs[name])
        return self._signatures.get(name)

    def signatures(self) -> Mapping[str, Signature]:
        """Return all signatures by name."""
        return {name: found for name in self.signature_defs if (found := self.signature(name))}

    def inputs(self) -> Mapping[str, Mapping[str, bytes]]:
        """Return the serialized TensorInfo of each input, by signature and alias."""
        return {
            name: {alias: info.SerializeToString() for alias, info in definition.inputs.items()}
            for name, definition in self.signature_defs.items()
        }

    def predict(
        self, signature: Signature, inputs: Mapping[str, Array], output_filter: Sequence[str], timeout_ms: int = 0
    ) -> dict[str, Array]:
        """Run one signature; return output alias -> array. Raises ServingError."""
        names, feeds, fetches = self.plan(signature, inputs, output_filter)
        return dict(zip(names, self.run(feeds, fetches, timeout_ms), strict=True))

    def plan(
        self, signature: Signature, inputs: Mapping[str, Array], output_filter: Sequence[str]
    ) -> tuple[list[str], list[tuple[tuple[int, int], Array]], list[tuple[int, int]]]:
        """Return (output aliases, feeds, fetches) for `run`. Raises ServingError."""
        feeds = [(endpoint.place, array) for endpoint, array in _matched(signature, inputs)]
        names = _chosen(signature, output_filter)
        return names, feeds, [signature.outputs[name].place for name in names]

    def run(
        self, feeds: Sequence[tuple[tuple[int, int], Array]], fetches: Sequence[tuple[int, int]], timeout_ms: int = 0
    ) -> list[Array]:
        """Run the session and return the arrays of `fetches`. Raises ServingError."""
        if self.max_batch_size:
            rows = max((len(array) for _, array in feeds if array.ndim), default=0)
            if rows > self.max_batch_size:
                raise invalid(f"Task size {rows} is larger than maximum input batch size {self.max_batch_size}")
        try:
            return self._session.run(feeds, fetches, timeout_ms)
        except TensorFlowError as e:
            raise ServingError(e.code, e.message) from None

    def acquire(self) -> bool:
        """Hold the version for a request until `release`. Return False if the version is being unloaded."""
        with self._idle:
            if self._retired:
                return False
            self._in_flight += 1
            return True

    def release(self) -> None:
        with self._idle:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.notify_all()

    def unload(self, timeout_s: float | None = None) -> bool:
        """Wait for the requests in flight, then free the model. Return False on timeout."""
        with self._idle:
            self._retired = True
            if not self._idle.wait_for(lambda: self._in_flight == 0, timeout_s):
                return False
        self._session.close()
        return True

    def _resolve(self, name: str, definition: pb.SignatureDef) -> Signature:
        def found(infos: Mapping[str, pb.TensorInfo]) -> dict[str, Endpoint]:
            return {
                alias: Endpoint(info.name, info, self._session.endpoint(info.name)) for alias, info in infos.items()
            }

        try:
            inputs, outputs = found(definition.inputs), found(definition.outputs)
        except TensorFlowError as e:
            raise ServingError(e.code, e.message) from None
        defaults = {alias: from_proto(proto) for alias, proto in definition.defaults.items()}
        return Signature(name, inputs, outputs, defaults)


def _matched(signature: Signature, given: Mapping[str, Array]) -> list[tuple[Endpoint, Array]]:
    """Pair the inputs with their endpoints; the signature's defaults replace missing inputs."""
    wanted = signature.inputs
    if given.keys() == wanted.keys():
        return [(endpoint, given[alias]) for alias, endpoint in wanted.items()]
    missing = sorted(wanted.keys() - given.keys() - signature.defaults.keys())
    extra = sorted(given.keys() - wanted.keys())
    if len(given) != len(wanted) and (missing or extra):
        raise invalid(
            f"input size does not match signature: {len(given)}!={len(wanted)} "
            f"len({{{','.join(sorted(given))}}}) != len({{{','.join(sorted(wanted))}}}). "
            f"Sent extra: {{{','.join(extra)}}}. Missing but required: {{{','.join(missing)}}}."
        )
    if missing:
        alias = missing[0]
        raise invalid(
            f"Signature input alias: {alias}(feed name: {wanted[alias].tensor_name}) not found in request and no "
            f"default value provided. Inputs expected to be in the request {{{','.join(sorted(given))}}}, "
            f"or default input alias set: {','.join(sorted(signature.defaults))}"
        )
    return [(endpoint, given[a] if a in given else signature.defaults[a]) for a, endpoint in wanted.items()]


def _chosen(signature: Signature, output_filter: Sequence[str]) -> list[str]:
    """Return the output names in the filter, or all if it is empty. Raises ServingError."""
    if not output_filter:
        return list(signature.outputs)
    seen = set()
    for name in output_filter:
        if name not in signature.outputs:
            expected = ",".join(sorted(signature.outputs))
            raise invalid(
                f"output tensor alias not found in signature: {name} Outputs expected to be in the set {{{expected}}}."
            )
        if name in seen:
            raise invalid(f"duplicate output tensor alias: {name}")
        seen.add(name)
    return list(output_filter)


def no_such_signature(name: str) -> ServingError:
    """Return Predict's error for an unknown signature (Classify and REST use other texts)."""
    return ServingError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
