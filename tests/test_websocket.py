import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, closing

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from tamulag.streamer.publisher import PublisherError
from tamulag.streamer.websocket import WebSocketPublisher

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)

Scenario = Callable[[WebSocketPublisher], Coroutine[None, None, None]]


def hello() -> str:
    return "hello"


@asynccontextmanager
async def served(publisher: WebSocketPublisher) -> AsyncIterator[WebSocketPublisher]:
    await publisher.open()
    run = asyncio.create_task(publisher.run())
    await asyncio.sleep(0)  # lets it begin
    try:
        yield publisher
    finally:
        run.cancel()
        await publisher.close()


def serve(scenario: Scenario, publisher: WebSocketPublisher | None = None) -> None:
    """Run a scenario against an open publisher, 20 seconds at most, and close it."""

    async def main() -> None:
        chosen = publisher or WebSocketPublisher(port=0, hello=hello)
        async with asyncio.timeout(20), served(chosen):
            await scenario(chosen)

    asyncio.run(main())


def subscribe(publisher: WebSocketPublisher, origin: str | None = None) -> connect:
    url = f"ws://127.0.0.1:{publisher.port}"
    return connect(url, origin=None if origin is None else Origin(origin), compression=None)


@asynccontextmanager
async def stalled(publisher: WebSocketPublisher) -> AsyncIterator[socket.socket]:
    """Subscribe with a small receive buffer and never read anything."""
    count = publisher.subscribers
    with closing(socket.socket()) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", publisher.port))
        await loop.sock_sendall(sock, HANDSHAKE)
        await until(lambda: publisher.subscribers == count + 1)
        yield sock


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 (bounded by the scenario)
        await asyncio.sleep(0.01)


async def read_all(connection: ClientConnection) -> list[str]:
    return [str(message) async for message in connection]


async def close_code(opening: Awaitable[ClientConnection]) -> int:
    connection = await opening
    with pytest.raises(ConnectionClosed) as closed:
        await connection.recv()
    assert closed.value.rcvd
    return closed.value.rcvd.code


def test_hello_comes_first_then_messages_in_order() -> None:
    """A subscriber gets its own hello, then what is published, in order."""

    async def scenario(publisher: WebSocketPublisher) -> None:
        async with subscribe(publisher) as connection:
            assert await connection.recv() == "hello"
            for payload in ("1", "2", "3"):
                publisher.publish("sentiment", payload)
            assert [await connection.recv() for _ in range(3)] == ["1", "2", "3"]

    serve(scenario)


def test_hello_is_made_at_connect() -> None:
    """Each subscriber gets the hello of its own time, and a published one is not repeated."""
    times = iter(["hello 1", "hello 2"])

    async def scenario(publisher: WebSocketPublisher) -> None:
        async with subscribe(publisher) as first, subscribe(publisher) as second:
            publisher.publish("hello", "published")
            publisher.publish("sentiment", "1")
            assert [await first.recv(), await first.recv()] == ["hello 1", "1"]
            assert [await second.recv(), await second.recv()] == ["hello 2", "1"]

    serve(scenario, WebSocketPublisher(port=0, hello=lambda: next(times)))


def test_the_latest_status_greets_a_newcomer() -> None:
    """The status published last follows the hello."""

    async def scenario(publisher: WebSocketPublisher) -> None:
        publisher.publish("status", "online")
        publisher.publish("status", "degraded")
        publisher.publish("sentiment", "missed")
        async with subscribe(publisher) as connection:
            assert [await connection.recv(), await connection.recv()] == ["hello", "degraded"]

    serve(scenario)


def test_a_full_outbox_drops_the_oldest() -> None:
    """A burst larger than the outbox loses its oldest messages, and they are counted."""

    async def scenario(publisher: WebSocketPublisher) -> None:
        async with subscribe(publisher) as connection:
            assert await connection.recv() == "hello"
            for number in range(10):
                publisher.publish("sentiment", str(number))
            assert [await connection.recv() for _ in range(3)] == ["7", "8", "9"]
            assert publisher.dropped == 7

    serve(scenario, WebSocketPublisher(port=0, hello=hello, queue=3))


def test_a_stalled_subscriber_is_cut_and_the_others_go_on() -> None:
    """Whoever stops reading is gone within 5 seconds; a healthy subscriber misses nothing."""

    async def scenario(publisher: WebSocketPublisher) -> None:
        async with subscribe(publisher) as healthy, stalled(publisher):
            assert await healthy.recv() == "hello"
            start = time.monotonic()
            late = 0.0
            while publisher.subscribers == 2:
                sent = time.monotonic()
                publisher.publish("sentiment", str(sent) + " " * 50_000)
                assert str(await healthy.recv()).strip() == str(sent)
                late = max(late, time.monotonic() - sent)
                await asyncio.sleep(0.02)
            assert time.monotonic() - start < 5.0
            assert late < 1.0
            assert publisher.dropped > 0

    serve(scenario)


def test_a_quiet_stalled_subscriber_is_found_by_ping() -> None:
    """Whoever stops reading is cut even when nothing is published."""

    async def scenario(publisher: WebSocketPublisher) -> None:
        async with stalled(publisher):
            await until(lambda: publisher.subscribers == 0)

    serve(scenario, WebSocketPublisher(port=0, hello=hello, heartbeat=0.2, send_timeout=0.2))


def test_an_outbox_never_waits_for_its_reader() -> None:
    """Publishing to a stalled subscriber returns at once."""

    async def scenario(publisher: WebSocketPublisher) -> None:
        async with stalled(publisher):
            start = time.monotonic()
            for _ in range(200):
                publisher.publish("sentiment", "x" * 50_000)
            assert time.monotonic() - start < 0.1
            assert publisher.dropped == 192

    serve(scenario)


def test_one_subscriber_too_many_is_told_to_try_later() -> None:
    """A full server closes the newcomer with 1013 and takes it once there is room."""

    async def scenario(publisher: WebSocketPublisher) -> None:
        async with subscribe(publisher):
            assert await close_code(subscribe(publisher)) == 1013
        await until(lambda: publisher.subscribers == 0)
        async with subscribe(publisher) as connection:
            assert await connection.recv() == "hello"

    serve(scenario, WebSocketPublisher(port=0, hello=hello, max_subscribers=1))


def test_a_talkative_subscriber_is_closed() -> None:
    """More than 4 KiB at once from a subscriber closes its connection with 1009."""

    async def scenario(publisher: WebSocketPublisher) -> None:
        async with subscribe(publisher) as connection:
            await connection.send("x" * 5000)
            with pytest.raises(ConnectionClosed, match="1009"):
                await read_all(connection)
        await until(lambda: publisher.subscribers == 0)

    serve(scenario)


def test_what_a_subscriber_says_is_ignored() -> None:
    """Small incoming messages change nothing, however many they are."""

    async def scenario(publisher: WebSocketPublisher) -> None:
        async with subscribe(publisher) as connection:
            for _ in range(100):
                await connection.send("anything")
            await (await connection.ping())
            publisher.publish("sentiment", "1")
            assert [await connection.recv(), await connection.recv()] == ["hello", "1"]

    serve(scenario)


def test_a_web_page_is_refused() -> None:
    """A browser page that is not listed cannot listen in."""

    async def scenario(publisher: WebSocketPublisher) -> None:
        with pytest.raises(InvalidStatus, match="403"):
            await subscribe(publisher, origin="http://example.org")

    serve(scenario)


def test_a_listed_web_page_is_served() -> None:
    """A browser page whose origin is listed may listen."""

    async def scenario(publisher: WebSocketPublisher) -> None:
        async with subscribe(publisher, origin="http://localhost:3000") as connection:
            assert await connection.recv() == "hello"

    origins = [None, "http://localhost:3000"]
    serve(scenario, WebSocketPublisher(port=0, hello=hello, origins=origins))


def test_a_busy_port_is_told() -> None:
    """The error names the port and the option, and nothing stays open."""

    async def scenario(publisher: WebSocketPublisher) -> None:
        second = WebSocketPublisher(port=publisher.port, hello=hello)
        text = f"port {publisher.port} on 127.0.0.1 is in use.*--websocket HOST:PORT"
        with pytest.raises(PublisherError, match=text):
            await second.open()
        await second.close()

    serve(scenario)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.7", "example.org", "::", ""])
def test_only_loopback_is_served(host: str) -> None:
    """An address that others could reach is refused with the address to use."""
    publisher = WebSocketPublisher(host, 8765, hello=hello)
    with pytest.raises(PublisherError, match=r"not a loopback.*--websocket 127\.0\.0\.1:8765"):
        asyncio.run(publisher.open())


def test_an_impossible_port_is_told() -> None:
    """A port beyond 65535 is refused like a busy one."""
    publisher = WebSocketPublisher(port=70000, hello=hello)
    with pytest.raises(PublisherError, match=r"127\.0\.0\.1:70000.*--websocket HOST:PORT"):
        asyncio.run(publisher.open())


def test_nobody_is_served_before_run() -> None:
    """Who comes while devices are still being opened would get a hello that is not true yet."""

    async def main() -> None:
        publisher = WebSocketPublisher(port=0, hello=hello)
        await publisher.open()
        try:
            with pytest.raises(ConnectionRefusedError):
                await subscribe(publisher)
        finally:
            await publisher.close()

    asyncio.run(main())


def test_a_port_taken_since_open_is_told() -> None:
    """The slower of two programs that start at the same moment says the same as ever."""

    async def main() -> None:
        slower = WebSocketPublisher(port=0, hello=hello)
        await slower.open()
        try:
            async with served(WebSocketPublisher(port=slower.port, hello=hello)):
                with pytest.raises(PublisherError, match="is in use"):
                    await slower.run()
        finally:
            await slower.close()

    asyncio.run(main())


def test_close_delivers_what_waits() -> None:
    """The last message reaches the subscriber before the close frame, code 1001."""

    async def scenario(publisher: WebSocketPublisher) -> None:
        async with subscribe(publisher) as connection:
            publisher.publish("sentiment", "1")
            publisher.publish("session_end", "end")
            closing = asyncio.create_task(publisher.close())
            assert [await connection.recv() for _ in range(3)] == ["hello", "1", "end"]
            await connection.wait_closed()
            assert connection.close_code == 1001
            await closing

    serve(scenario)


def test_close_is_bounded_and_leaves_nothing() -> None:
    """Neither a stalled subscriber nor a half-open handshake holds up `close` or leaves a task."""

    async def main() -> None:
        publisher = WebSocketPublisher(port=0, hello=hello)
        async with asyncio.timeout(20), served(publisher), stalled(publisher):
            _, half_open = await asyncio.open_connection("127.0.0.1", publisher.port)
            for _ in range(8):
                publisher.publish("sentiment", "x" * 500_000)
            start = time.monotonic()
            await publisher.close()
            assert time.monotonic() - start < 2.0
            assert publisher.subscribers == 0
            half_open.close()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_closing_twice_or_unopened_is_harmless() -> None:
    """`close` may be called at any time."""

    async def scenario(publisher: WebSocketPublisher) -> None:
        await WebSocketPublisher(hello=hello).close()
        await publisher.close()
        await publisher.close()

    serve(scenario)


def test_a_bug_reaches_run() -> None:
    """An unexpected error in a connection's task ends `run`, so that the agent hears of it."""

    def broken() -> str:
        raise ZeroDivisionError

    async def main() -> None:
        publisher = WebSocketPublisher(port=0, hello=broken)
        await publisher.open()
        try:
            async with asyncio.timeout(5):
                await asyncio.gather(publisher.run(), close_code(subscribe(publisher)))
        finally:
            await publisher.close()

    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())
