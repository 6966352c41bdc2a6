"""Clients of the WebSocket server under test, over real sockets of the loopback."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, closing

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Opcode
from websockets.typing import Origin

from tamulag.streamer.bench.rig.websocket_frames import connected, frames
from tamulag.streamer.webserver.access_control import Access
from tamulag.streamer.webserver.connection import Limits
from tamulag.streamer.webserver.server import WebSocketPublisher

from .waiting import until

Scenario = Callable[[WebSocketPublisher], Coroutine[None, None, None]]


def hello() -> str:
    return "hello"


def missed(count: int) -> str:
    return f"missed {count}"


def publisher(
    access: Access | None = None, port: int = 0, limits: Limits | None = None
) -> WebSocketPublisher:
    return WebSocketPublisher(access, port, hello=hello, missed=missed, limits=limits)


@asynccontextmanager
async def served(chosen: WebSocketPublisher) -> AsyncIterator[WebSocketPublisher]:
    await chosen.open()
    run = asyncio.create_task(chosen.run())
    await asyncio.sleep(0)  # lets it begin
    try:
        yield chosen
    finally:
        run.cancel()
        await chosen.close()


def serve(scenario: Scenario, chosen: WebSocketPublisher | None = None) -> None:
    """Run a scenario against an open publisher, 20 seconds at most, and close it."""

    async def main() -> None:
        server = chosen or publisher()
        async with asyncio.timeout(20), served(server):
            await scenario(server)

    asyncio.run(main())


def subscribe(
    server: WebSocketPublisher,
    origin: str | None = None,
    token: str | None = None,
    tls: ssl.SSLContext | None = None,
) -> connect:
    return connect(
        server.url,
        origin=None if origin is None else Origin(origin),
        additional_headers={} if token is None else {"Authorization": f"Bearer {token}"},
        compression=None,
        proxy=None,
        ssl=tls,
    )


@asynccontextmanager
async def stalled(server: WebSocketPublisher) -> AsyncIterator[socket.socket]:
    """Subscribe with a small receive buffer and never read anything."""
    count = server.subscribers
    with closing(connected(server.port, 4096)) as sock:
        sock.setblocking(False)
        await until(lambda: server.subscribers == count + 1)
        yield sock


async def texts(sock: socket.socket) -> AsyncIterator[str]:
    """Yield the messages that a stalled subscriber gets when it reads at last."""
    loop, waiting = asyncio.get_running_loop(), bytearray()
    while True:
        waiting += await loop.sock_recv(sock, 65536)
        for kind, data in frames(waiting):
            if kind == Opcode.TEXT:
                yield data.decode()


async def read_all(connection: ClientConnection) -> list[str]:
    return [str(message) async for message in connection]


async def close_code(opening: Awaitable[ClientConnection]) -> int:
    connection = await opening
    with pytest.raises(ConnectionClosed) as closed:
        await connection.recv()
    assert closed.value.rcvd
    return closed.value.rcvd.code


async def ask(server: WebSocketPublisher, *lines: str, method: str = "GET") -> tuple[int, str]:
    """Send plain HTTP, `PATH` and then headers; return the status and all that was answered."""
    path, *headers = lines
    request = "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""])
    return await answer(server, request.encode())


async def answer(server: WebSocketPublisher, request: bytes) -> tuple[int, str]:
    """Send bytes; return the status, 0 if there is none, and all that was answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(request)
        got = (await reader.read(100_000)).decode()
    except ConnectionResetError:
        got = ""
    finally:
        writer.transport.abort()
    return int(got.split()[1]) if got.startswith("HTTP/1.1 ") else 0, got
