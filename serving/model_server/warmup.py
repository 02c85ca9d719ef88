"""Warm-up: replays the requests stored in a version before it becomes available."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import google_crc32c
from google.protobuf.message import DecodeError

from serving.model_server import data_plane
from serving.model_server.errors import Code, ServingError, invalid
from serving.model_server.servable import Servable
from serving.protocol import serving_pb2 as pb

FILE: Final = Path("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS: Final = 1000


def replay(servable: Servable) -> int:
    """Run all records and return their number. Raises ServingError if one fails or the file is not a TFRecord file."""
    path = servable.folder / FILE
    if not path.is_file():
        return 0
    count = 0
    for count, record in enumerate(records(path.read_bytes()), 1):
        if count > MAX_RECORDS:
            raise invalid(f"Number of warmup records exceeds the maximum ({MAX_RECORDS}): {path}")
        try:
            _run(servable, pb.PredictionLog.FromString(record))
        except DecodeError as e:
            raise ServingError(Code.DATA_LOSS, f"Failed to parse warmup record {count} of {path}: {e}") from None
    return count


def _run(servable: Servable, log: pb.PredictionLog) -> None:
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        data_plane.predict(servable, log.predict_log.request)
    elif kind == "classify_log":
        data_plane.classify(servable, log.classify_log.request)
    elif kind == "regress_log":
        data_plane.regress(servable, log.regress_log.request)
    elif kind == "multi_inference_log":
        data_plane.multi_inference(servable, log.multi_inference_log.request)
    else:
        raise ServingError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")


def records(content: bytes) -> Iterator[bytes]:
    """Yield the records of a TFRecord file: uint64 length, its masked CRC-32C, data, masked CRC-32C of the data."""
    place = 0
    while place < len(content):
        if len(content) - place < 12:
            raise ServingError(Code.DATA_LOSS, f"truncated record at {place}")
        length, length_crc = struct.unpack_from("<QI", content, place)
        if _masked_crc(content[place : place + 8]) != length_crc:
            raise ServingError(Code.DATA_LOSS, f"corrupted record at {place}")
        data = content[place + 12 : place + 12 + length]
        if len(data) < length or len(content) < place + 16 + length:
            raise ServingError(Code.DATA_LOSS, f"truncated record at {place}")
        (data_crc,) = struct.unpack_from("<I", content, place + 12 + length)
        if _masked_crc(data) != data_crc:
            raise ServingError(Code.DATA_LOSS, f"corrupted record at {place}")
        yield data
        place += 16 + length


def _masked_crc(data: bytes) -> int:
    """Return the CRC-32C with the TFRecord format's mask: rotated right by 15 bits, plus a constant."""
    crc = int(google_crc32c.value(data))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
