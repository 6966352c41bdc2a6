"""A flood pushes out connections and sessions of its own address, and nobody else's."""

import asyncio
import errno
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from support.certificates import authority
from support.waiting import until
from support.websocket_peers import ask, hello, missed, publisher, served, subscribe
from tamulag.streamer.webserver import access_control
from tamulag.streamer.webserver.access_control import Access, AuthSettings, Token, access
from tamulag.streamer.webserver.connection import MAX_REQUEST, Limits
from tamulag.streamer.webserver.pending_connections import CountedSocket, PendingConnections
from tamulag.streamer.webserver.server import WebSocketPublisher

from ..service.test_server_senders import VOICE, ServerUnderTest, Silent

SECRET = "correct-horse-battery"


def play(server: WebSocketPublisher, scenario) -> None:  # type: ignore[no-untyped-def]
    async def main() -> None:
        async with asyncio.timeout(30), served(server):
            await scenario(server)

    asyncio.run(main())


@asynccontextmanager
async def silent(
    server: WebSocketPublisher, count: int, host: str
) -> AsyncIterator[list[asyncio.Task[bytes]]]:
    """Open connections that say nothing, from an address of this machine; give their answers."""
    opened = []
    for _ in range(count):
        opened.append(await asyncio.open_connection("127.0.0.1", server.port, local_addr=(host, 0)))
    answers = [asyncio.create_task(reader.read()) for reader, _ in opened]
    try:
        yield answers
    finally:
        for _, writer in opened:
            writer.transport.abort()
        await asyncio.gather(*answers, return_exceptions=True)


def cut(flood: list[asyncio.Task[bytes]]) -> list[bool]:
    return [one.done() for one in flood]


def test_a_flood_pushes_out_its_own() -> None:
    """The newcomer of another address, whose request is slow, stays; so does a subscriber."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with subscribe(server) as before:
            assert await before.recv() == "hello"
            async with (
                silent(server, 1, "127.0.0.1") as slow,
                silent(server, 20, "127.0.0.2") as flood,
            ):
                await until(lambda: sum(cut(flood)) == 17)
                assert server.refused == {"too many without handshake or token": 17}
                assert cut(slow) == [False]
                server.publish("event", "still here")
                assert await before.recv() == "still here"
                async with subscribe(server) as newcomer:
                    assert await newcomer.recv() == "hello"

    play(publisher(limits=Limits(pending=4)), scenario)


def test_half_open_tls_counts_from_accept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And its flood is a line of the log, not one for each."""
    ca = authority(tmp_path)
    pair = ca.sign("server")
    settings = AuthSettings(certificate=str(pair.certificate), key=str(pair.key))
    chosen = publisher(access("127.0.0.1", settings), limits=Limits(pending=4))
    trusting = ssl.create_default_context(cafile=str(ca.own.certificate))

    async def scenario(server: WebSocketPublisher) -> None:
        async with silent(server, 40, "127.0.0.2") as flood:
            await until(lambda: sum(cut(flood)) == 36)
            began = time.monotonic()
            async with subscribe(server, tls=trusting) as newcomer:
                assert await newcomer.recv() == "hello"
            assert time.monotonic() - began < 2.0

    play(chosen, scenario)
    assert sum("connections cut" in line for line in caplog.messages) == 1


def test_one_address_counts_from_accept() -> None:
    """Refused at once, while others are let in."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with silent(server, 10, "127.0.0.2") as flood:
            await until(lambda: sum(cut(flood)) == 7)
            assert server.refused == {"too many from one address": 7}
            told = [one.result() for one in flood if one.done()]
            assert all(one.startswith(b"HTTP/1.1 503 ") for one in told)
            async with subscribe(server) as newcomer:
                assert await newcomer.recv() == "hello"

    play(publisher(limits=Limits(per_address=3)), scenario)


def test_without_files_a_pending_one_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of an endless log; without one the error is asyncio's."""

    def full(self: socket.socket) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(socket.socket, "accept", full)
    one, other = socket.socketpair()
    pending = PendingConnections(10, 10, time.monotonic)
    with CountedSocket() as listening, one, other:
        listening.pending = pending
        with pytest.raises(OSError, match="too many open files"):
            listening.accept()
        pending.accept(one, ("127.0.0.1", 1))
        with pytest.raises(BlockingIOError):
            listening.accept()
        assert other.recv(1) == b""


def test_the_right_token_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guess from the same address is answered later each time, in the end with 429."""
    monkeypatch.setattr(access_control, "LONGEST_DELAY", 0.5)
    locked = WebSocketPublisher(Access(tokens=(Token(SECRET),)), 0, hello=hello, missed=missed)

    async def guess(server: WebSocketPublisher) -> int:
        return (await ask(server, "/metrics", "Authorization: Bearer wrong-horse-battery"))[0]

    async def scenario(server: WebSocketPublisher) -> None:
        answers = await asyncio.gather(*(guess(server) for _ in range(30)))
        assert set(answers) == {401, 429}
        guessing = asyncio.create_task(guess(server))
        began = time.monotonic()
        async with subscribe(server, token=SECRET) as connection:
            assert await connection.recv() == "hello"
        assert time.monotonic() - began < 0.4
        assert await guessing == 429
        assert time.monotonic() - began >= 0.4

    play(locked, scenario)


def test_thousands_of_guesses_end_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The delay stays at its bound, however many came before."""
    monkeypatch.setattr(access_control, "LONGEST_DELAY", 0.05)
    locked = WebSocketPublisher(Access(tokens=(Token(SECRET),)), 0, hello=hello, missed=missed)

    async def scenario(server: WebSocketPublisher) -> None:
        for _ in range(5000):
            server._router.attempts.add("127.0.0.1", time.monotonic())
        async with subscribe(server) as guessing:
            await guessing.send('{"token": "wrong-horse-battery"}')
            with pytest.raises(ConnectionClosed):
                await guessing.recv()
            assert guessing.close_code == 1008
        assert (await ask(server, "/metrics", "Authorization: Bearer wrong"))[0] == 429

    play(locked, scenario)


def test_sessions_that_wait_are_bounded_for_each_address() -> None:
    """The one that waits longest for its sender ends; those of another address wait on."""

    async def scenario() -> None:
        server = ServerUnderTest(seats=10, per_address=2)

        def begun(peer: str) -> str:
            connection = Silent()
            connection.peer = peer
            receiver = server.senders.admit(VOICE, connection)
            receiver.begin()
            receiver.detach("it has vanished")
            return receiver.name

        other, first, second = (begun(f"10.0.0.{last}") for last in (8, 7, 7))
        sessions = server.registry.open
        assert [name for name in sessions if sessions[name].closing] == []
        third = begun("10.0.0.7")
        assert [name for name in sessions if sessions[name].closing] == [first]
        assert {other, second, third} < set(sessions)

    asyncio.run(scenario())


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80"])
def test_a_page_of_another_name_cannot_guess(host: str) -> None:
    """On loopback `Host` counts with a token too, but for a page that is listed (a proxy)."""
    origins = ("https://kiosk.example",)
    chosen = Access(tokens=(Token(SECRET),), origins=origins)
    locked = WebSocketPublisher(chosen, 0, hello=hello, missed=missed)

    async def status(server: WebSocketPublisher, name: str) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        lines = ("GET / HTTP/1.1", f"Host: {name}", "Authorization: Bearer x", "", "")
        writer.write("\r\n".join(lines).encode())
        answer = await reader.readline()
        writer.transport.abort()
        return answer.split()[1]

    async def scenario(server: WebSocketPublisher) -> None:
        assert await status(server, host) == b"403"
        assert await status(server, "kiosk.example") == b"401"

    play(locked, scenario)


def test_headers_are_bounded() -> None:
    """A request that never ends is cut long before a megabyte."""

    async def scenario(server: WebSocketPublisher) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        lines = (b"X: " + b"a" * 8000 + b"\r\n") * 7
        writer.write(b"GET / HTTP/1.1\r\n" + lines)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.transport.abort()
        assert MAX_REQUEST < 40_000
        assert server.refused == {"a request too long": 1}

    play(publisher(), scenario)
