"""The frames of a client that uses no library, read and written by the library."""

from websockets.frames import Frame, Opcode
from websockets.protocol import SERVER, Protocol, State

from tamulag.streamer.bench.rig.websocket_frames import encode, frames, handshake

PAYLOADS = [b"x" * size for size in (0, 125, 126, 65535, 65536, 200_000)]


def test_frames_are_those_of_a_client() -> None:
    """Of any length; a server takes them."""
    server = Protocol(SERVER, state=State.OPEN, max_size=None)
    server.receive_data(b"".join(encode(Opcode.BINARY, payload) for payload in PAYLOADS))
    found = [event for event in server.events_received() if isinstance(event, Frame)]
    assert [frame.opcode for frame in found] == [Opcode.BINARY] * len(PAYLOADS)
    assert [bytes(frame.data) for frame in found] == PAYLOADS


def test_frames_of_a_server_come_in_any_pieces() -> None:
    """The answer to the handshake is left out; half a frame waits for its rest."""
    answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
    sent = answer + b"".join(Frame(Opcode.TEXT, data).serialize(mask=False) for data in PAYLOADS)
    waiting = bytearray()
    found: list[tuple[int, bytes]] = []
    for start in range(0, len(sent), 1000):
        waiting += sent[start : start + 1000]
        found += frames(waiting)
    assert found == [(Opcode.TEXT, data) for data in PAYLOADS]
    assert not waiting


def test_the_handshake_names_its_path() -> None:
    """It ends with an empty line."""
    assert handshake("/ingest").startswith(b"GET /ingest HTTP/1.1\r\n")
    assert handshake().endswith(b"\r\n\r\n")
