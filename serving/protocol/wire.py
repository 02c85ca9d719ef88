"""Pieces of the protobuf wire format, where building a message would take longer or there is no class for it."""

from __future__ import annotations


def varint(value: int) -> bytes:
    """A base-128 varint; negative numbers take ten bytes, two's complement of 64 bits."""
    value &= 2**64 - 1
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
