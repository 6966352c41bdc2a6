"""How a sender is received: its limits and its close reasons; over real connections."""

import asyncio
import json
import logging
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from support.waiting import until
from support.websocket_peers import missed, served
from tamulag.streamer.protocol.ingest import (
    EndHeader,
    IngestError,
    PlacedFrame,
    SenderHello,
    SoundHeader,
    build_frame,
)
from tamulag.streamer.service.ingest_endpoint import IngestEndpoint, SenderLimits
from tamulag.streamer.service.session_faults import Fault, log_fault
from tamulag.streamer.webserver.access_control import Access, Token
from tamulag.streamer.webserver.connection import Connection
from tamulag.streamer.webserver.server import WebSocketPublisher

SECRET = "correct-horse-battery"
HELLO = {"type": "hello", "audio": {"encoding": "pcm_s16le", "rate": 16000}}
BLOCK = bytes(640)


class Recorded:
    """Admits everybody, and records the calls of the endpoint."""

    logger = logging.getLogger("tamulag.test")
    name = "s1"

    def __init__(self, refusal: IngestError | None = None) -> None:
        self.ready: dict[str, Any] = {"session": "s1"}
        self.refusal = refusal
        self.calls: list[str] = []
        self.placed: list[PlacedFrame] = []
        self.now = lambda: 100.0

    def admit(self, hello: SenderHello, connection: Connection) -> "Recorded":
        if self.refusal:
            raise self.refusal
        self.calls.append("admit")
        return self

    def begin(self) -> None:
        self.calls.append("begin")

    async def feed(self, placed: PlacedFrame) -> bool:
        self.calls.append("feed")
        self.placed.append(placed)
        return True

    async def finish(self) -> None:
        self.calls.append("finish")

    def fail(self, error: Exception) -> Fault:
        self.calls.append("fail")
        return log_fault("sender s1", error, log=self.logger)

    def detach(self, detail: str) -> None:
        self.calls.append(f"detach: {detail}")


def play(
    scenario: Callable[[WebSocketPublisher], Coroutine[None, None, None]],
    senders: Recorded | None = None,
    *,
    access: Access | None = None,
    limits: SenderLimits | None = None,
) -> None:
    """Run a scenario against a server with an ingest endpoint, 20 seconds at most."""

    async def main() -> None:
        endpoint = IngestEndpoint(senders or Recorded(), subject="customer", limits=limits)
        server = WebSocketPublisher(
            access, 0, hello=lambda: "hello", missed=missed, receive=endpoint.receive
        )
        async with asyncio.timeout(20), served(server):
            await scenario(server)

    asyncio.run(main())


def sender(server: WebSocketPublisher, origin: str | None = None) -> connect:
    return connect(
        f"{server.url}ingest", origin=Origin(origin) if origin else None, proxy=None, max_size=None
    )


async def ready(connection: ClientConnection, hello: object = HELLO) -> dict[str, Any]:
    await connection.send(json.dumps(hello))
    answer: dict[str, Any] = json.loads(await connection.recv())
    return answer


async def refusal(connection: ClientConnection) -> tuple[int, str]:
    """Return code and reason of the close."""
    await connection.wait_closed()
    assert connection.close_code
    return connection.close_code, connection.close_reason or ""


def block(position: int = 0, payload: bytes = BLOCK) -> bytes:
    return build_frame(SoundHeader(timestamp=5 + position / 16000, position=position), payload)


END = build_frame(EndHeader(timestamp=6))


def test_a_sender_is_received_from_its_hello_to_its_end() -> None:
    """The hello is answered with the limits; each frame has its session time and its samples."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with sender(server) as connection:
            answer = await ready(connection)
            assert list(answer)[:4] == ["type", "v", "session", "message"]
            assert answer | {"type": "ready", "session": "s1", "message": 262144} == answer
            for frame in (block(), block(640), END):
                await connection.send(frame)
            assert await refusal(connection) == (1000, "the sender has left")

    senders = Recorded()
    play(scenario, senders)
    expected = ["admit", "begin", "feed", "feed", "finish", "detach: the sender has left"]
    assert senders.calls == expected
    assert [placed.span for placed in senders.placed] == [(0, 320), (640, 960)]
    assert senders.placed[0].place == 100.0


def test_a_sender_that_breaks_off_is_detached() -> None:
    """Nothing is finished: it may come back."""
    senders = Recorded()

    async def scenario(server: WebSocketPublisher) -> None:
        async with sender(server) as connection:
            await ready(connection)
            connection.transport.abort()
        await until(lambda: senders.calls[-1].startswith("detach"))

    play(scenario, senders)
    assert senders.calls == ["admit", "begin", "detach: the sender has left"]


def test_a_refused_sender_gets_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing has begun, so nothing is detached; the senders' own logger has it too."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with sender(server) as connection:
            await connection.send(json.dumps(HELLO))
            assert await refusal(connection) == (1013, "no room")

    senders = Recorded(IngestError(1013, "no room"))
    play(scenario, senders)
    assert senders.calls == []
    refused = [one for one in caplog.records if one.name == "tamulag.test"]
    assert [one.getMessage() for one in refused] == ["sender 127.0.0.1: no room"]


def test_timestamps_of_the_sender_s_own_clock_are_session_time() -> None:
    """They may leap by a minute."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with sender(server) as connection:
            await ready(connection, HELLO | {"clock": "sender"})
            for timestamp in (5, 160, 161):
                await connection.send(build_frame(SoundHeader(timestamp=timestamp), BLOCK))
            assert await refusal(connection) == (1008, "timestamp 161.000 leaps by 61 s")

    senders = Recorded()
    play(scenario, senders)
    assert [placed.place for placed in senders.placed] == [5.0, 160.0]
    assert senders.calls[-1] == "detach: timestamp 161.000 leaps by 61 s"


@pytest.mark.parametrize(
    ("frames", "code", "reason"),
    [
        (["a text"], 1003, "binary frames"),
        ([b"\x00\x00\x00\x02{}"], 1007, "no valid header"),
        ([block(320), block(0)], 1008, "position 0 is behind 640"),
        ([bytes(300_000)], 1009, ""),
        ([block(320 * count) for count in range(1500)], 1008, "too many messages"),
    ],
    ids=["text", "header", "position", "size", "rate"],
)
def test_a_wrong_frame_ends_the_connection(
    frames: list[str | bytes], code: int, reason: str
) -> None:
    """With a close code and a reason."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with sender(server) as connection:
            await ready(connection)
            for frame in frames:
                await connection.send(frame)
            got, text = await refusal(connection)
            assert got == code
            assert reason in text

    play(scenario)


@pytest.mark.parametrize(
    ("hello", "code", "reason"),
    [
        ({"type": "hello"}, 1007, "nothing is offered"),
        (HELLO | {"role": "agent"}, 1008, "scores a customer"),
    ],
    ids=["empty", "somebody else"],
)
def test_a_wrong_hello_ends_the_connection(hello: object, code: int, reason: str) -> None:
    """Before any frame is accepted."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with sender(server) as connection:
            await connection.send(json.dumps(hello))
            got, text = await refusal(connection)
            assert got == code
            assert reason in text

    play(scenario)


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (SenderLimits(bandwidth=50), "more than 50 bytes in a second"),
        (SenderLimits(duration=0.0), "0 s are over: connect again"),
    ],
    ids=["bytes", "time"],
)
def test_bytes_and_time_are_limited(limits: SenderLimits, text: str) -> None:
    """A second has so many bytes, a sender so many seconds."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with sender(server) as connection:
            await ready(connection)
            await connection.send(block())
            assert await refusal(connection) == (1008, text)

    play(scenario, limits=limits)


def test_a_sender_needs_the_token() -> None:
    """Its first message is the token, then comes the hello."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with sender(server) as wrong:
            await wrong.send(json.dumps(HELLO))
            assert await refusal(wrong) == (1008, "no valid token")
        async with sender(server) as right:
            await right.send(json.dumps({"token": SECRET}))
            assert (await ready(right))["type"] == "ready"

    play(scenario, access=Access(tokens=(Token(SECRET),)))


def test_foreign_pages_may_not_send() -> None:
    """Our own page may, a listed one too, any other is refused before the handshake."""

    async def scenario(server: WebSocketPublisher) -> None:
        for origin in (f"http://127.0.0.1:{server.port}", "https://calls.example"):
            async with sender(server, origin) as allowed:
                assert (await ready(allowed))["type"] == "ready"
        with pytest.raises(InvalidStatus, match="403"):
            await sender(server, "https://elsewhere.example")

    play(scenario, access=Access(origins=("https://calls.example",)))


def test_a_subscriber_may_not_say_more_because_of_it() -> None:
    """The larger limits are for a sender after its hello alone."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with sender(server) as connection:
            await connection.send(bytes(5000))
            assert (await refusal(connection))[0] == 1009

    play(scenario)


def test_without_ingest_the_path_is_not_there() -> None:
    """A server without ingest answers 404."""

    async def main() -> None:
        server = WebSocketPublisher(None, 0, hello=lambda: "hello", missed=missed)
        async with asyncio.timeout(20), served(server):
            with pytest.raises(InvalidStatus, match="404"):
                await sender(server)

    asyncio.run(main())


def test_the_length_is_big_endian() -> None:
    """As network protocols have it, and as the capture page writes it."""
    frame = block()
    (size,) = struct.unpack(">I", frame[:4])
    assert json.loads(frame[4 : 4 + size])["kind"] == "audio"
