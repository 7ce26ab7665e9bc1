"""JSON documents over a stream of bytes, each behind its length. No torch."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

HEAD = struct.Struct(">I")


def frame(document: dict[str, Any]) -> bytes:
    """The document as it goes over the wire."""
    body = json.dumps(document).encode()
    return HEAD.pack(len(body)) + body


def send(peer: socket.socket, document: dict[str, Any]) -> None:
    """Send a document whole."""
    peer.sendall(frame(document))


def receive(peer: socket.socket) -> dict[str, Any]:
    """The next document; EOFError if the peer is gone, TimeoutError as the socket is set."""
    (length,) = HEAD.unpack(_exactly(peer, HEAD.size))
    document: dict[str, Any] = json.loads(_exactly(peer, length))
    return document


def unframe(data: bytes) -> dict[str, Any] | None:
    """The one document in `data`, or None if it is not whole: its sender was cut off."""
    if len(data) < HEAD.size or len(data) != HEAD.size + HEAD.unpack_from(data)[0]:
        return None
    document: dict[str, Any] = json.loads(data[HEAD.size :])
    return document


def _exactly(peer: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        if not (more := peer.recv(count - len(data))):
            raise EOFError
        data += more
    return data
