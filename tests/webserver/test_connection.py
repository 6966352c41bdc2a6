"""One subscriber at a time: slow, stalled, talkative; real sockets."""

import asyncio
import json
import time

import pytest
from websockets.exceptions import ConnectionClosed

from support.waiting import until
from support.websocket_peers import (
    close_code,
    publisher,
    read_all,
    serve,
    stalled,
    subscribe,
    texts,
)
from tamulag.streamer.protocol import messages
from tamulag.streamer.webserver.connection import Limits, text_frame
from tamulag.streamer.webserver.server import WebSocketPublisher

LONG = " " * 50_000
"""Some of these fill what the system holds for a subscriber."""


def test_a_slow_subscriber_gets_the_newest_and_learns_how_many_it_missed() -> None:
    """In the place of what it missed, before the oldest that is left."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with stalled(server) as sock:
            for number in range(100):
                server.publish("sentiment", f"{number}{LONG}")
            assert server.dropped > 80
            got = []
            async for text in texts(sock):
                got.append(text.strip())
                if text.startswith("99"):
                    break
        place = got.index(f"missed {server.dropped}")
        assert got[0] == "hello"
        assert got[1:place] == [str(number) for number in range(place - 1)]
        assert got[place + 1 :] == ["97", "98", "99"]

    serve(scenario, publisher(limits=Limits(queue=3)))


def test_a_second_gap_is_reported_by_itself() -> None:
    """Each message says what was missed since the one before."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with stalled(server) as sock:
            told, messages = [], texts(sock)
            for end in ("a", "b"):
                before = server.dropped
                for _ in range(60):
                    server.publish("sentiment", LONG)
                server.publish("sentiment", end)
                wanted = f"missed {server.dropped - before}"
                async for text in messages:
                    told += [text] if text.startswith("missed") else []
                    if text == end:
                        break
                assert told.pop() == wanted
                assert not told

    serve(scenario)


def test_a_fast_subscriber_gets_no_report() -> None:
    """A burst that is read at once is delivered whole, however small the queue is."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with subscribe(server) as connection:
            assert await connection.recv() == "hello"
            for number in range(100):
                server.publish("sentiment", str(number))
            assert [await connection.recv() for _ in range(100)] == [str(n) for n in range(100)]
            assert server.dropped == 0

    serve(scenario, publisher(limits=Limits(queue=1)))


def test_a_stalled_subscriber_is_cut_and_the_others_go_on() -> None:
    """A peer that stops reading is cut within 5 seconds; a healthy one misses nothing."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with subscribe(server) as healthy, stalled(server):
            assert await healthy.recv() == "hello"
            start = time.monotonic()
            late = 0.0
            while server.subscribers == 2:
                sent = time.monotonic()
                server.publish("sentiment", f"{sent}{LONG}")
                assert str(await healthy.recv()).strip() == str(sent)
                late = max(late, time.monotonic() - sent)
                await asyncio.sleep(0.02)
            assert time.monotonic() - start < 5.0
            assert late < 1.0
            assert server.dropped > 0

    serve(scenario)


def test_a_quiet_stalled_subscriber_is_cut_too() -> None:
    """It owes a pong: gone within 5 seconds though nothing fills its buffers."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with stalled(server):
            start = time.monotonic()
            await until(lambda: server.subscribers == 0)
            assert time.monotonic() - start < 5.0

    serve(scenario)


def test_a_quiet_subscriber_that_answers_stays() -> None:
    """Silence is no fault: pings are answered by every WebSocket library and browser."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with subscribe(server) as connection:
            await asyncio.sleep(0.6)  # three times as long as silence is borne
            server.publish("sentiment", "1")
            assert [await connection.recv(), await connection.recv()] == ["hello", "1"]

    serve(scenario, publisher(limits=Limits(heartbeat=0.05, send_timeout=0.15, rate=1000)))


def test_delivery_never_waits_for_the_reader() -> None:
    """Publishing to a stalled subscriber returns at once."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with stalled(server):
            start = time.monotonic()
            for _ in range(200):
                server.publish("sentiment", LONG)
            assert time.monotonic() - start < 0.2
            assert server.dropped > 180

    serve(scenario)


def test_a_long_message_of_a_subscriber_closes_it() -> None:
    """More than the limit at once: code 1009."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with subscribe(server) as connection:
            await connection.send("x" * 4096)
            await connection.send("x" * 4097)
            with pytest.raises(ConnectionClosed, match="1009"):
                await read_all(connection)
        await until(lambda: server.subscribers == 0)

    serve(scenario)


@pytest.mark.parametrize("kind", ["text", "ping"])
def test_a_flood_of_a_subscriber_closes_it(kind: str) -> None:
    """Too many frames in a second: code 1008, and pings are frames."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with subscribe(server) as connection:
            with pytest.raises(ConnectionClosed, match="1008"):  # noqa: PT012 (when is not fixed)
                for number in range(10_000):
                    await (connection.send("x") if kind == "text" else connection.ping(f"{number}"))
                await read_all(connection)
        await until(lambda: server.subscribers == 0)

    serve(scenario)


def test_a_rejected_peer_that_stays_is_cut() -> None:
    """A peer that neither reads the close frame nor leaves holds no seat."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with stalled(server) as sock:
            loop = asyncio.get_running_loop()
            with pytest.raises((ConnectionResetError, BrokenPipeError)):  # noqa: PT012
                for _ in range(10_000):
                    await loop.sock_sendall(sock, b"\x81\x81\0\0\0\0x" * 30)
                    await asyncio.sleep(0.01)
            assert server.subscribers == 0

    serve(scenario)


def test_what_a_subscriber_sends_is_ignored() -> None:
    """Few and small messages change nothing."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with subscribe(server) as connection:
            for _ in range(15):
                await connection.send("anything")
            await (await connection.ping())
            server.publish("sentiment", "1")
            assert [await connection.recv(), await connection.recv()] == ["hello", "1"]

    serve(scenario)


def test_a_bug_in_telling_what_was_missed_is_not_hidden() -> None:
    """It ends `run`, as every bug does."""

    def broken(count: int) -> str:
        raise ZeroDivisionError

    async def main() -> None:
        server = WebSocketPublisher(
            port=0, hello=lambda: "hello", missed=broken, limits=Limits(queue=1)
        )
        await server.open()
        try:
            async with asyncio.timeout(10), asyncio.TaskGroup() as group:
                group.create_task(server.run())
                await asyncio.sleep(0)
                async with stalled(server) as sock:
                    for _ in range(60):
                        server.publish("sentiment", LONG)
                    async for _ in texts(sock):
                        pass
        finally:
            await server.close()

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(main())
    assert caught.group_contains(ZeroDivisionError)


def test_what_was_missed_is_a_message_of_the_schema() -> None:
    """It belongs to the session of the hello that it is made from."""
    head = {"session": "s", "seq": 7, "time": "2026-11-24T00:00:00.000Z"}
    line = messages.missed(messages.encode(messages.Heartbeat(**head)), 3)
    told = messages.decode(line)
    assert isinstance(told, messages.Missed)
    assert (told.session, told.seq, told.missed) == ("s", 7, 3)
    assert json.loads(line)["type"] == "missed"


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_a_frame_is_read_by_a_real_client(size: int) -> None:
    """One that is made once for all, at each length of its header."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with subscribe(server) as connection:
            await connection.recv()
            server.publish("sentiment", "ü" * (size // 2) + "x" * (size % 2))
            assert len(str(await connection.recv()).encode()) == size

    serve(scenario)
    assert text_frame("x" * size).endswith(b"x" * size)


def test_a_full_server_answers_1013() -> None:
    """And takes the next one when there is room."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with subscribe(server):
            assert await close_code(subscribe(server)) == 1013
        await until(lambda: server.subscribers == 0)
        async with subscribe(server) as connection:
            assert await connection.recv() == "hello"
        assert server.refused == {"too many subscribers": 1}

    serve(scenario, publisher(limits=Limits(subscribers=1)))
