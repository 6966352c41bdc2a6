"""The bytes of a WebSocket client that costs next to nothing, and that may break the protocol.

Knows RFC 6455 without extensions. Knows no message and no server of ours.
"""

import socket
from collections.abc import Iterator

from websockets.frames import Opcode

PONG = bytes([0x80 | Opcode.PONG, 0x80]) + bytes(4)
"""The answer to the server's pings, which carry no data."""

_HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def connected(
    port: int, receive_buffer: int | None = None, path: str = "/", limit: float = 60.0
) -> socket.socket:
    """Return a socket on which the handshake was sent, and nothing read yet.

    Args:
        port: Of the server, on the loopback.
        receive_buffer: Bytes; None: as the system gives.
        path: Of the URL.
        limit: Seconds that each call may take later.
    """
    sock = socket.socket()
    sock.settimeout(limit)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.connect(("127.0.0.1", port))
    sock.sendall(handshake(path))
    return sock


def handshake(path: str = "/") -> bytes:
    """Return what opens a connection."""
    return _HANDSHAKE.format(path=path).encode()


def encode(kind: int, payload: bytes, *, reserved: int = 0, is_masked: bool = True) -> bytes:
    """Return one final frame; the mask is zero, which any server takes.

    Args:
        kind: Opcode; some are none.
        payload: Any bytes.
        reserved: Bits of the head that must be zero, e.g. 0x70.
        is_masked: As a client's must be.
    """
    size, mask = len(payload), 0x80 if is_masked else 0
    head = bytes([0x80 | reserved | kind])
    if size < 126:
        head += bytes([mask | size])
    elif size < 65536:
        head += bytes([mask | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([mask | 127]) + size.to_bytes(8, "big")
    return head + (bytes(4) if is_masked else b"") + payload


def frames(waiting: bytearray) -> Iterator[tuple[int, bytes]]:
    """Take each whole frame of a server out of what has arrived; yield opcode and payload.

    The answer to the handshake is left out.
    """
    if waiting.startswith(b"HTTP"):
        if (head := waiting.find(b"\r\n\r\n")) < 0:
            return
        del waiting[: head + 4]
    while len(waiting) >= 2:
        size, start = waiting[1], 2
        if size >= 126:
            start = 4 if size == 126 else 10
            size = int.from_bytes(waiting[2:start], "big")
        if len(waiting) < start + size:
            return
        kind, data = waiting[0] & 15, bytes(waiting[start : start + size])
        del waiting[: start + size]
        yield kind, data
