"""The server: who is let in, what it serves besides, how it ends. Real sockets, real TLS."""

import asyncio
import gc
import json
import logging
import re
import socket
import ssl
import threading
import time
from contextlib import closing
from http import HTTPStatus
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from support.certificates import Pair, authority
from support.waiting import until
from support.websocket_peers import (
    answer,
    ask,
    close_code,
    hello,
    missed,
    publisher,
    serve,
    served,
    stalled,
    subscribe,
)
from tamulag.streamer.bench.rig.websocket_frames import handshake
from tamulag.streamer.publishers.publisher import PublisherError
from tamulag.streamer.webserver import access_control, server
from tamulag.streamer.webserver.access_control import Access, AuthSettings, Token, access
from tamulag.streamer.webserver.connection import Connection, Limits
from tamulag.streamer.webserver.rights import Rights
from tamulag.streamer.webserver.routes import Page, Route
from tamulag.streamer.webserver.server import WebSocketPublisher

SECRET = "correct-horse-battery"
WRONG = "wrong-horse-battery"


def locked(limits: Limits | None = None) -> WebSocketPublisher:
    """Return a server with a token and one page."""
    page = Route(make=lambda: Page(HTTPStatus.OK, "figures"))
    return WebSocketPublisher(
        Access(tokens=(Token(SECRET),)),
        0,
        hello=hello,
        missed=missed,
        routes={"/metrics": page},
        limits=limits,
    )


def test_hello_comes_first_then_messages_in_order() -> None:
    """A subscriber gets its own hello, then what is published, in order."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with subscribe(server) as connection:
            assert await connection.recv() == "hello"
            for payload in ("1", "2", "3"):
                server.publish("sentiment", payload)
            assert [await connection.recv() for _ in range(3)] == ["1", "2", "3"]

    serve(scenario)


def test_hello_is_made_at_connect() -> None:
    """Each subscriber gets the hello of its own time, and a published one is not repeated."""
    times = iter(["hello 1", "hello 2"])

    async def scenario(server: WebSocketPublisher) -> None:
        async with subscribe(server) as first, subscribe(server) as second:
            server.publish("hello", "published")
            server.publish("sentiment", "1")
            assert [await first.recv(), await first.recv()] == ["hello 1", "1"]
            assert [await second.recv(), await second.recv()] == ["hello 2", "1"]

    serve(scenario, WebSocketPublisher(port=0, hello=lambda: next(times), missed=missed))


def test_the_latest_status_greets_a_newcomer() -> None:
    """The status published last follows the hello."""

    async def scenario(server: WebSocketPublisher) -> None:
        server.publish("status", "online")
        server.publish("status", "degraded")
        server.publish("sentiment", "missed")
        async with subscribe(server) as connection:
            assert [await connection.recv(), await connection.recv()] == ["hello", "degraded"]

    serve(scenario)


def test_one_address_has_only_so_many_connections() -> None:
    """The next one is answered with 503, and others are let in when one has left."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with subscribe(server), subscribe(server):
            status, got = await ask(server, "/")
            assert status == 503
            assert got.endswith("\r\n\r\ntoo many connections: try again soon\n")
        await until(lambda: server.subscribers == 0)
        async with subscribe(server) as connection:
            assert await connection.recv() == "hello"
        assert server.refused == {"too many from one address": 1}

    serve(scenario, publisher(limits=Limits(per_address=2)))


def test_half_open_connections_are_few() -> None:
    """Who connects and says nothing takes no seat from who does."""

    async def scenario(server: WebSocketPublisher) -> None:
        silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(10)]
        await until(lambda: sum(server.refused.values()) == 7)
        assert server.refused == {"too many without handshake or token": 7}
        assert (await silent[0][0].read()).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        silent[0][1].transport.abort()
        await asyncio.sleep(0.05)
        async with subscribe(server) as connection:
            assert await connection.recv() == "hello"
        for _, writer in silent:
            writer.transport.abort()

    serve(scenario, publisher(limits=Limits(pending=3)))


def test_a_handshake_takes_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that never finishes its request is cut."""
    monkeypatch.setattr(server, "_HANDSHAKE", 0.2)

    async def scenario(server: WebSocketPublisher) -> None:
        assert await answer(server, handshake()[:-2]) == (0, "")

    serve(scenario)


def test_a_web_page_is_refused() -> None:
    """A browser page that is not listed cannot listen in."""

    async def scenario(server: WebSocketPublisher) -> None:
        with pytest.raises(InvalidStatus, match="403"):
            await subscribe(server, origin="http://example.org")

    serve(scenario)


def test_a_page_that_points_its_own_name_here_is_refused() -> None:
    """DNS rebinding: Host and Origin are the stranger's, the address is ours."""
    name = ["Host: rebound.example:8765"]
    lines = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="

    async def scenario(server: WebSocketPublisher) -> None:
        for headers in (lines, [*lines, "Origin: http://rebound.example:8765"], []):
            request = "\r\n".join(["GET / HTTP/1.1", *name, *headers, key, "", ""])
            assert (await answer(server, request.encode()))[0] == 403

    serve(scenario)


def test_a_listed_web_page_is_served() -> None:
    """A browser page whose origin is listed may listen."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with subscribe(server, origin="http://localhost:3000") as connection:
            assert await connection.recv() == "hello"

    serve(scenario, publisher(Access(origins=("http://localhost:3000",))))


def test_the_token_may_come_in_the_header() -> None:
    """Then hello comes at once, without a first message."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with subscribe(server, token=SECRET) as connection:
            assert await connection.recv() == "hello"

    serve(scenario, locked())


def test_the_token_may_be_the_first_message() -> None:
    """A browser cannot set headers. Nothing is sent before."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with subscribe(server) as connection:
            server.publish("sentiment", "secret")
            await asyncio.sleep(0.05)
            assert server.subscribers == 0
            await connection.send(json.dumps({"token": SECRET}))
            assert await connection.recv() == "hello"

    serve(scenario, locked())


def test_a_wrong_header_is_answered_with_401() -> None:
    """No WebSocket comes about."""

    async def scenario(server: WebSocketPublisher) -> None:
        with pytest.raises(InvalidStatus, match="401"):
            await subscribe(server, token=WRONG)

    serve(scenario, locked())


@pytest.mark.parametrize("first", [json.dumps({"token": WRONG}), "{}", b"\xff", "[" * 4000, ""])
def test_a_wrong_first_message_closes_with_1008(first: str | bytes) -> None:
    """Whatever it is; nothing is sent before the close frame."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with subscribe(server) as connection:
            await connection.send(first)

            async def opened() -> object:
                return connection

            assert await close_code(opened()) == 1008  # type: ignore[arg-type]

    serve(scenario, locked())


def test_a_crowd_without_tokens_is_told_to_come_later() -> None:
    """Who has not sent a token yet is closed with 1013 when others need the room."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with subscribe(server) as first, subscribe(server):
            with pytest.raises(ConnectionClosed):
                await first.recv()
            assert first.close_code == 1013

    serve(scenario, locked(Limits(pending=1)))


def test_a_missing_token_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed with 1008 after a while."""
    monkeypatch.setattr(server, "_HANDSHAKE", 0.2)

    async def scenario(server: WebSocketPublisher) -> None:
        assert await close_code(subscribe(server)) == 1008

    serve(scenario, locked())


def test_guessing_ends_after_ten_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The eleventh is 429; the right token is let in, by header and by message."""
    monkeypatch.setattr(access_control, "LONGEST_DELAY", 0.05)

    async def scenario(server: WebSocketPublisher) -> None:
        bad, good = (f"Authorization: Bearer {token}" for token in (WRONG, SECRET))
        assert (await ask(server, "/metrics", good))[0] == 200
        assert {(await ask(server, "/metrics", bad))[0] for _ in range(9)} == {401}
        assert [(await ask(server, "/metrics", line))[0] for line in (bad, good)] == [429, 200]
        async with subscribe(server) as connection:
            await connection.send(json.dumps({"token": SECRET}))
            assert await connection.recv() == "hello"

    serve(scenario, locked())


def test_no_log_shows_a_token(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the right one nor a wrong one, however much is logged."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with subscribe(server, token=SECRET):
            await until(lambda: server.subscribers == 1)
        async with subscribe(server) as connection:
            await connection.send(json.dumps({"token": WRONG}))
            await connection.wait_closed()
        await ask(server, f"/metrics?token={SECRET}", f"Authorization: Bearer {WRONG}")

    caplog.set_level(logging.DEBUG, "tamulag")
    caplog.set_level(logging.DEBUG, "websockets.server")
    serve(scenario, locked())
    ours = "\n".join(
        record.getMessage() for record in caplog.records if record.name != "websockets.client"
    )
    assert "wrong one, from 127.0.0.1" in ours
    assert SECRET not in ours
    assert WRONG not in ours


@pytest.fixture
def pki(tmp_path: Path) -> tuple[Path, Pair, Pair]:
    """Return an authority's certificate, and what it signed for a server and for a client."""
    ca = authority(tmp_path / "ours")
    return ca.own.certificate, ca.sign("server"), ca.sign("client")


def trusting(ca: Path, own: Pair | None = None) -> ssl.SSLContext:
    """Return what a client knows: whom it trusts, and its own certificate."""
    context = ssl.create_default_context(cafile=str(ca))
    if own is not None:
        context.load_cert_chain(*own)
    return context


def test_tls_with_a_token(pki: tuple[Path, Pair, Pair], monkeypatch: pytest.MonkeyPatch) -> None:
    """wss:// with a certificate that the client checks; the token is asked for inside."""
    ca, pair, _ = pki
    monkeypatch.setenv("TAMULAG_TOKEN", SECRET)
    opened = access("127.0.0.1", AuthSettings(certificate=str(pair.certificate), key=str(pair.key)))

    async def scenario(server: WebSocketPublisher) -> None:
        assert server.url.startswith("wss://")
        async with subscribe(server, token=SECRET, tls=trusting(ca)) as connection:
            server.publish("sentiment", "1" * 300_000)
            assert [len(await connection.recv()) for _ in range(2)] == [5, 300_000]
        with pytest.raises(InvalidStatus, match="401"):
            await subscribe(server, token=WRONG, tls=trusting(ca))
        with pytest.raises(ssl.SSLCertVerificationError):
            await subscribe(server, token=SECRET, tls=ssl.create_default_context())
        assert await answer(server, handshake()) == (0, "")  # no TLS, no answer

    serve(scenario, publisher(opened))


def test_old_tls_is_refused(pki: tuple[Path, Pair, Pair]) -> None:
    """TLS 1.1 and below are broken."""
    ca, pair, _ = pki
    old = trusting(ca)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    opened = access("127.0.0.1", AuthSettings(certificate=str(pair.certificate), key=str(pair.key)))

    async def scenario(server: WebSocketPublisher) -> None:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await subscribe(server, tls=old)

    serve(scenario, publisher(opened))


def test_client_certificates(pki: tuple[Path, Pair, Pair], tmp_path: Path) -> None:
    """Signed by our authority: served. None, or another's: refused."""
    ca, pair, own = pki
    foreign = authority(tmp_path / "theirs").sign("client")
    lock = AuthSettings(certificate=str(pair.certificate), key=str(pair.key), client_ca=str(ca))

    async def scenario(server: WebSocketPublisher) -> None:
        async with subscribe(server, tls=trusting(ca, own)) as connection:
            assert await connection.recv() == "hello"
        for stranger in (trusting(ca), trusting(ca, foreign)):
            with pytest.raises((ssl.SSLError, ConnectionError, WebSocketException)):
                async with subscribe(server, tls=stranger) as connection:
                    await connection.recv()
        assert server.subscribers == 0

    serve(scenario, publisher(access("127.0.0.1", lock)))


def test_a_stalled_subscriber_behind_tls_is_cut(pki: tuple[Path, Pair, Pair]) -> None:
    """Encryption has a buffer of its own, which is bounded by the pong that is owed."""
    ca, pair, _ = pki
    opened = access("127.0.0.1", AuthSettings(certificate=str(pair.certificate), key=str(pair.key)))

    async def scenario(server: WebSocketPublisher) -> None:
        async with subscribe(server, tls=trusting(ca)) as connection:
            await until(lambda: server.subscribers == 1)
            connection.transport.pause_reading()
            start = time.monotonic()
            while server.subscribers:
                server.publish("sentiment", "x" * 20_000)
                await asyncio.sleep(0.05)
            assert time.monotonic() - start < 5.0
            assert server.dropped > 0
            connection.transport.abort()

    serve(scenario, publisher(opened))


def test_pages_are_served_on_the_same_port() -> None:
    """With their type, never cached, the connection closed after them; 404 and 426 for others."""

    async def scenario(server: WebSocketPublisher) -> None:
        status, text = await ask(server, "/metrics", f"Authorization: Bearer {SECRET}")
        assert status == 200
        assert text.endswith("\r\n\r\nfigures")
        for line in ("Content-Type: text/plain; charset=utf-8", "Cache-Control: no-store"):
            assert line in text
        assert [(await ask(server, path))[0] for path in ("/metrics", "/x", "/")] == [401, 404, 426]
        assert (await ask(server, "/metrics", method="POST"))[0] == 405
        bearer = f"Authorization: Bearer {SECRET}"
        status, text = await ask(server, "/metrics", bearer, method="HEAD")
        assert status == 200
        assert "Content-Length: 7" in text
        assert text.endswith("\r\n\r\n")

    serve(scenario, locked())


def test_a_bug_in_a_page_is_not_hidden() -> None:
    """Who asked gets 500, and `run` ends with the error."""

    def broken() -> Page:
        raise ZeroDivisionError

    async def main() -> None:
        server = WebSocketPublisher(
            port=0, hello=hello, missed=missed, routes={"/x": Route(make=broken)}
        )
        await server.open()
        try:
            run = asyncio.create_task(server.run())
            await asyncio.sleep(0)
            async with asyncio.timeout(5):
                assert (await ask(server, "/x"))[0] == 500
                await run
        finally:
            await server.close()

    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())


LINES = """\
Host: localhost|Host: a|Host|Upgrade: websocket|Connection: Upgrade|Sec-WebSocket-Version: 13
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==|Sec-WebSocket-Extensions: permessage-deflate
Authorization: Bearer|Authorization: Bearer wrong-horse-battery|Authorization: Basic eDp5
Content-Length: 9|Transfer-Encoding: chunked|Origin: null|: x|ü: ü|\0|"""
LINE = st.sampled_from([*re.split(r"[|\n]", LINES), f"X: {'y' * 9000}"])
START = st.sampled_from(
    ["GET / HTTP/1.1", "GET /metrics HTTP/1.1", "GET /%2e%2e/ HTTP/1.0", "PUT * HTTP/1.1", "GET"]
) | st.text(max_size=30)
REQUEST = st.binary(max_size=300) | st.builds(
    lambda start, lines, rest: "\r\n".join([start, *lines, "", ""]).encode() + rest,
    START,
    st.lists(LINE | st.text(max_size=30), max_size=9),
    st.binary(max_size=60),
)


def test_no_bytes_bring_the_server_down() -> None:
    """Whatever comes in, before or after the handshake: no way in, no bug, no seat lost."""

    async def scenario(server: WebSocketPublisher) -> None:
        loop = asyncio.get_running_loop()

        @settings(max_examples=150, suppress_health_check=list(HealthCheck))
        @given(REQUEST)
        def throw(request: bytes) -> None:
            with socket.create_connection(("127.0.0.1", server.port), timeout=5.0) as sock:
                try:
                    sock.sendall(request)
                    sock.shutdown(socket.SHUT_WR)
                    while got := sock.recv(65536):
                        assert b"figures" not in got
                        assert b"hello" not in got
                        assert b" 500 " not in got
                except ConnectionError:
                    pass

        await loop.run_in_executor(None, throw)
        async with subscribe(server, token=SECRET) as connection:
            assert await connection.recv() == "hello"
        assert server._error is None

    serve(scenario, allowing(locked()))


def allowing(server: WebSocketPublisher) -> WebSocketPublisher:
    """Let a server take any number of wrong tokens, so that fuzzing goes on."""
    server._router.attempts._allowed = 10**9
    return server


def test_a_busy_port_is_reported() -> None:
    """The error names the port and the option, and nothing stays open."""

    async def scenario(server: WebSocketPublisher) -> None:
        second = publisher(port=server.port)
        text = f"port {server.port} on 127.0.0.1 is in use.*--websocket HOST:PORT"
        with pytest.raises(PublisherError, match=text):
            await second.open()
        await second.close()

    serve(scenario)


def test_an_impossible_port_is_reported() -> None:
    """A port beyond 65535 is refused like a busy one."""
    with pytest.raises(PublisherError, match=r"127\.0\.0\.1:70000.*--websocket HOST:PORT"):
        asyncio.run(publisher(port=70000).open())


def test_an_address_of_another_machine_is_reported() -> None:
    """It cannot be bound; 192.0.2.0/24 belongs to nobody."""
    with pytest.raises(PublisherError, match=r"cannot serve 192\.0\.2\.1:0"):
        asyncio.run(publisher(Access(host="192.0.2.1", tokens=(Token(SECRET),))).open())


def test_nobody_is_served_before_run() -> None:
    """Who comes while devices are still being opened would get a hello that is not true yet."""

    async def main() -> None:
        server = publisher()
        await server.open()
        try:
            with pytest.raises(ConnectionRefusedError):
                await subscribe(server)
        finally:
            await server.close()

    asyncio.run(main())


def test_a_port_taken_since_open_is_reported() -> None:
    """The slower of two programs that start at the same moment says the same as ever."""

    async def main() -> None:
        slower = publisher()
        await slower.open()
        try:
            async with served(publisher(port=slower.port)):
                with pytest.raises(PublisherError, match="is in use"):
                    await slower.run()
        finally:
            await slower.close()

    asyncio.run(main())


def test_it_can_be_opened_again() -> None:
    """After `close`, on the same port, as a supervisor does."""

    async def main() -> None:
        server = publisher()
        for _ in range(2):
            async with asyncio.timeout(5), served(server), connect(server.url) as connection:
                assert await connection.recv() == "hello"

    asyncio.run(main())


def test_close_delivers_what_waits() -> None:
    """The last message reaches the subscriber before the close frame, code 1001."""

    async def scenario(server: WebSocketPublisher) -> None:
        async with connect(server.url, max_size=None, compression=None) as connection:
            await until(lambda: server.subscribers == 1)
            long = "x" * 3_000_000
            for payload in (long, "end"):
                server.publish("sentiment", payload)
            ending = asyncio.create_task(server.close())
            assert [await connection.recv() for _ in range(3)] == ["hello", long, "end"]
            await connection.wait_closed()
            assert connection.close_code == 1001
            await ending

    serve(scenario)


def test_close_is_bounded_and_leaves_nothing() -> None:
    """Neither a stalled subscriber nor a half-open handshake holds up `close` or leaves a task."""

    async def main() -> None:
        server = publisher()
        async with asyncio.timeout(20), served(server), stalled(server):
            _, half_open = await asyncio.open_connection("127.0.0.1", server.port)
            for _ in range(8):
                server.publish("sentiment", "x" * 500_000)
            start = time.monotonic()
            await server.close()
            assert time.monotonic() - start < 2.0
            assert server.subscribers == 0
            half_open.close()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_what_outlives_the_end_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    """A sender that is served for longer than the end may take is no failure, and is named."""

    async def endless(connection: Connection) -> None:
        await asyncio.sleep(60)

    async def main() -> None:
        server = WebSocketPublisher(port=0, hello=hello, missed=missed, receive=endless)
        async with served(server), connect(f"{server.url}ingest", proxy=None):
            await server.close()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert "1 connections were still being served at the end: cut off" in caplog.text


@pytest.mark.parametrize("turns", range(2))
def test_a_late_connection_is_cut(turns: int) -> None:
    """However far a connection has come when `close` begins, its socket does not stay open."""

    async def main() -> None:
        server = publisher()
        with closing(socket.socket()) as sock:
            sock.setblocking(False)
            async with served(server):
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
                for _ in range(turns):
                    await asyncio.sleep(0)

    asyncio.run(main())
    gc.collect()  # an open transport warns as it goes, which is an error here


def test_closing_twice_or_unopened_is_harmless() -> None:
    """`close` may be called at any time."""

    async def scenario(server: WebSocketPublisher) -> None:
        await publisher().close()
        await server.close()
        await server.close()

    serve(scenario)


def test_a_bug_reaches_run() -> None:
    """An unexpected error in a connection's task ends `run`, so that the agent hears of it."""

    def broken() -> str:
        raise ZeroDivisionError

    async def main() -> None:
        server = WebSocketPublisher(port=0, hello=broken, missed=missed)
        await server.open()
        try:
            async with asyncio.timeout(5):
                await asyncio.gather(server.run(), close_code(subscribe(server)))
        finally:
            await server.close()

    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())


def test_a_page_that_takes_a_while_holds_up_nobody() -> None:
    """It is made in a thread, and a subscriber gets its messages meanwhile."""
    is_free = threading.Event()

    def slow(rights: Rights) -> Page:
        assert is_free.wait(10)
        return Page(HTTPStatus.NOT_FOUND, "found nothing")

    shelf = Route(make=lambda: Page(HTTPStatus.OK, "", later=slow))
    chosen = WebSocketPublisher(None, 0, hello=hello, missed=missed, routes={"/slow": shelf})

    async def scenario(server: WebSocketPublisher) -> None:
        async with subscribe(server) as connection:
            asked = asyncio.create_task(ask(server, "/slow"))
            assert await connection.recv() == "hello"
            server.publish("sentiment", "1")
            assert await connection.recv() == "1"
            is_free.set()
            code, text = await asked
        assert (code, text.endswith("found nothing")) == (404, True)
        assert server.refused == {"404 Not Found": 1}

    serve(scenario, chosen)
