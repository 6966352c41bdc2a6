"""Which senders are accepted, their limits, and their close reasons; over real connections."""

import asyncio
import json
import struct
from collections.abc import Collection, Coroutine
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from support.waiting import until
from support.websocket_peers import missed, served
from tamulag.streamer.config.loader import ConfigError, load
from tamulag.streamer.core.sample import Modality
from tamulag.streamer.core.source import Put
from tamulag.streamer.protocol.ingest import PlacedFrame, SenderHello, SoundHeader, build_frame
from tamulag.streamer.protocol.messages import Role
from tamulag.streamer.service.receiving import SenderLimits
from tamulag.streamer.service.single_sender import SingleSender
from tamulag.streamer.webserver.access_control import Access, Token
from tamulag.streamer.webserver.server import WebSocketPublisher

SECRET = "correct-horse-battery"
HELLO = {"type": "hello", "audio": {"encoding": "pcm_s16le", "rate": 16000}}
BLOCK = bytes(640)


class Idle:
    """Work that is never done: the source does not run."""

    def __init__(self, *modalities: Modality) -> None:
        self.modalities = modalities

    def begin(self, hello: SenderHello) -> None: ...

    def push(self, placed: PlacedFrame, put: Put) -> None: ...

    def end(self, put: Put) -> None: ...

    def losses(self) -> dict[str, int]:
        return {}

    def gauges(self) -> dict[str, float]:
        return {}

    def shed(self, steps: Collection[str]) -> None: ...


def make_endpoint(
    subject: Role = "customer", *, takes_words: bool = True, limits: SenderLimits | None = None
) -> SingleSender:
    return SingleSender(
        voice=Idle("text", "audio"),
        face=Idle("vision"),
        subject=subject,
        takes_words=takes_words,
        now=asyncio.get_running_loop().time,
        limits=limits,
    )


def play(scenario: Any, *, access: Access | None = None, **rest: Any) -> None:
    """Run a scenario against a server with an ingest endpoint, 20 seconds at most."""

    async def main() -> None:
        endpoint = make_endpoint(**rest)
        server = WebSocketPublisher(
            access, 0, hello=lambda: "hello", missed=missed, receive=endpoint.receive
        )
        async with asyncio.timeout(20), served(server):
            result: Coroutine[None, None, None] = scenario(server, endpoint)
            await result

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


def test_frames_reach_their_source() -> None:
    """The hello is answered with the limits; then every frame waits for the voice."""

    async def scenario(server: WebSocketPublisher, endpoint: SingleSender) -> None:
        async with sender(server) as connection:
            answer = await ready(connection)
            assert (answer["type"], answer["message"]) == ("ready", 262144)
            for count in range(3):
                await connection.send(block(320 * count))
            voice, face = endpoint.sources
            await until(lambda: voice.gauges()["ingest_audio_waiting"] == 4.0)
            assert face.gauges()["ingest_vision_waiting"] == 1.0

    play(scenario)


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

    async def scenario(server: WebSocketPublisher, endpoint: SingleSender) -> None:
        async with sender(server) as connection:
            await ready(connection)
            for frame in frames:
                await connection.send(frame)
            got, text = await refusal(connection)
            assert got == code
            assert reason in text

    play(scenario)


@pytest.mark.parametrize(
    ("hello", "rest", "code", "reason"),
    [
        ({"type": "hello"}, {}, 1007, "nothing is offered"),
        (HELLO | {"role": "agent"}, {}, 1008, "scores a customer"),
        (HELLO | {"words": True}, {"takes_words": False}, 1008, "--asr none"),
    ],
    ids=["empty", "somebody else", "words twice"],
)
def test_a_wrong_hello_ends_the_connection(
    hello: object, rest: dict[str, Any], code: int, reason: str
) -> None:
    """Before any frame is accepted."""

    async def scenario(server: WebSocketPublisher, endpoint: SingleSender) -> None:
        async with sender(server) as connection:
            await connection.send(json.dumps(hello))
            got, text = await refusal(connection)
            assert got == code
            assert reason in text

    play(scenario, **rest)


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

    async def scenario(server: WebSocketPublisher, endpoint: SingleSender) -> None:
        async with sender(server) as connection:
            await ready(connection)
            await connection.send(block())
            assert await refusal(connection) == (1008, text)

    play(scenario, limits=limits)


def test_one_sender_at_a_time() -> None:
    """The second should try later; after the first has left it is accepted."""

    async def scenario(server: WebSocketPublisher, endpoint: SingleSender) -> None:
        async with sender(server) as first:
            await ready(first)
            async with sender(server) as second:
                assert (await refusal(second))[0] == 1013
        async with sender(server) as third:
            assert (await ready(third))["type"] == "ready"

    play(scenario)


def test_a_sender_needs_the_token() -> None:
    """Its first message is the token, then comes the hello."""

    async def scenario(server: WebSocketPublisher, endpoint: SingleSender) -> None:
        async with sender(server) as wrong:
            await wrong.send(json.dumps(HELLO))
            assert await refusal(wrong) == (1008, "no valid token")
        async with sender(server) as right:
            await right.send(json.dumps({"token": SECRET}))
            assert (await ready(right))["type"] == "ready"

    play(scenario, access=Access(token=Token(SECRET)))


def test_foreign_pages_may_not_send() -> None:
    """Our own page may, a listed one too, any other is refused before the handshake."""

    async def scenario(server: WebSocketPublisher, endpoint: SingleSender) -> None:
        for origin in (f"http://127.0.0.1:{server.port}", "https://calls.example"):
            async with sender(server, origin) as allowed:
                assert (await ready(allowed))["type"] == "ready"
        with pytest.raises(InvalidStatus, match="403"):
            await sender(server, "https://elsewhere.example")

    play(scenario, access=Access(origins=("https://calls.example",)))


def test_a_subscriber_may_not_say_more_because_of_it() -> None:
    """The larger limits are for a sender after its hello alone."""

    async def scenario(server: WebSocketPublisher, endpoint: SingleSender) -> None:
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


@pytest.mark.parametrize(
    "other", [{"camera.device": 0}, {"source.path": "x.mp4"}, {"websocket.enabled": False}]
)
def test_settings_name_what_does_not_go_with_a_sender(other: dict[str, object]) -> None:
    """A device or file would fill the same modalities, and without a port no sender can connect."""
    (key,) = other
    with pytest.raises(ConfigError, match=rf"ingest.enabled = true: .*{key}"):
        load(None, {"ingest.enabled": True, **other})
