"""Frames between the driver and the guest: 4 bytes of length, then one JSON object."""

import json
import struct
from typing import Any, BinaryIO, Dict, Optional

PROTOCOL = 2
MAX_FRAME = 256 * 2**20


def read_frame(stream: Any) -> Optional[Dict[str, Any]]:
    """The next message; None at the end of the stream."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    (size,) = struct.unpack(">I", head)
    if size > MAX_FRAME:
        raise ValueError("frame too large")
    body = stream.read(size)
    message = json.loads(body.decode()) if len(body) == size else None
    return message if isinstance(message, dict) else None


def write_frame(stream: BinaryIO, message: Dict[str, Any]) -> None:
    body = json.dumps(message).encode()
    stream.write(struct.pack(">I", len(body)) + body)
    stream.flush()
