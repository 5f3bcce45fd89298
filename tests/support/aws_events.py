"""AWS's event streams as Bedrock sends them: binary messages, each with its lengths and checksums.

Source: AWS SDKs, "Event stream encoding" (application/vnd.amazon.eventstream); Bedrock API reference, ConverseStream.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

import orjson

CONTENT_TYPE = "application/vnd.amazon.eventstream"
_STRING = 7


def event(kind: str, payload: Mapping[str, object]) -> bytes:
    """One event of a stream, `contentBlockDelta` say."""
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return message(headers, orjson.dumps(payload))


def exception(kind: str, text: str) -> bytes:
    """A failure within a stream, `throttlingException` say."""
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return message(headers, orjson.dumps({"message": text}))


def message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Total length, length of the headers, checksum of both; headers; payload; checksum of it all. Big-endian."""
    named = b"".join(_header(name.encode(), value.encode()) for name, value in headers.items())
    lengths = struct.pack("!II", 12 + len(named) + len(payload) + 4, len(named))
    whole = lengths + _checksum(lengths) + named + payload
    return whole + _checksum(whole)


def _header(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + struct.pack("!BH", _STRING, len(value)) + value


def _checksum(raw: bytes) -> bytes:
    return struct.pack("!I", zlib.crc32(raw))
