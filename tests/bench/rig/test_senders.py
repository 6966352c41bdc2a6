"""Seats that cost next to nothing; test_capacity.py runs them against a server."""

from websockets.frames import Frame, Opcode
from websockets.protocol import SERVER, Protocol, State

from tamulag.streamer.bench.rig.senders import masked


def test_frames_are_those_of_a_client() -> None:
    """Of any length; a server takes them."""
    payloads = [b"x" * size for size in (0, 125, 126, 65535, 65536, 200_000)]
    server = Protocol(SERVER, state=State.OPEN, max_size=None)
    server.receive_data(masked(payloads))
    frames = [event for event in server.events_received() if isinstance(event, Frame)]
    assert [frame.opcode for frame in frames] == [Opcode.BINARY] * len(payloads)
    assert [bytes(frame.data) for frame in frames] == payloads
