"""Publish messages to WebSocket subscribers: one server, many readers, newest wins.

Knows the WebSocket protocol, through `websockets`. Knows nothing of what the messages say.
"""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
from collections.abc import Callable, Sequence
from weakref import WeakSet

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.typing import Origin

from .publisher import Outbox, PublisherError

logger = logging.getLogger("tamulag.websocket")

_INCOMING = 4096
"""Bytes a subscriber may say at once; nothing it says is used."""

_SEND_BUFFER = 64 * 1024
"""Bytes the system may hold for one subscriber: what waits there cannot be dropped for newer."""

_GOODBYE = 1.5
"""Seconds that subscribers have to take what waits for them and to answer the close frame."""

_LAST_TASKS = 0.4
"""Seconds that the tasks of connections that were cut have to end."""


class WebSocketPublisher:
    """Serve every message to every subscriber on a loopback address.

    Each subscriber has an outbox of its own, which drops its oldest message when it is full. A
    subscriber that does not take a message within `send_timeout` is cut; one that stops reading
    while so little is sent that its buffers never fill owes a pong, and is cut for that after
    `heartbeat + send_timeout` and one second for the close frame.

    Args:
        host: A loopback address.
        port: TCP port; 0 lets the system choose, see `port`.
        hello: Makes the payload that is sent first to each new subscriber; called at that time.
        queue: Messages that may wait for one subscriber.
        send_timeout: Seconds a subscriber may block a send, or owe a pong.
        heartbeat: Seconds between pings.
        max_subscribers: One more is refused with close code 1013.
        origins: Accepted `Origin` headers; None stands for programs, which send none. A browser
            page is refused unless its origin is listed.
    """

    name = "websocket"

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8765,
        *,
        hello: Callable[[], str],
        queue: int = 8,
        send_timeout: float = 3.0,
        heartbeat: float = 1.0,
        max_subscribers: int = 1000,
        origins: Sequence[str | None] = (None,),
    ) -> None:
        self.dropped = 0
        self._host = host
        self._port = port
        self._hello = hello
        self._queue = queue
        self._send_timeout = send_timeout
        self._heartbeat = heartbeat
        self._max_subscribers = max_subscribers
        self._origins = [None if origin is None else Origin(origin) for origin in origins]
        self._status: str | None = None
        self._server: Server | None = None
        self._connections: WeakSet[ServerConnection] = WeakSet()
        self._outboxes: set[Outbox[str]] = set()
        self._error: Exception | None = None
        self._failed = asyncio.Event()

    @property
    def port(self) -> int:
        """The port that is served, once open."""
        return self._port

    @property
    def subscribers(self) -> int:
        """How many subscribers are connected."""
        return len(self._outboxes)

    async def open(self) -> None:
        """Bind the port; subscribers are accepted from `run` on, when `hello` can be told.

        Raises:
            PublisherError: If the address is not a loopback address or the port is not free.
        """
        host = _loopback(self._host, self._port)
        try:
            self._server = await serve(
                self._handle,
                host,
                self._port,
                origins=self._origins,
                compression=None,
                server_header=None,
                open_timeout=5.0,
                ping_interval=self._heartbeat,
                ping_timeout=self._send_timeout,
                close_timeout=1.0,
                max_size=_INCOMING,
                create_connection=_remembered_in(self._connections),
                start_serving=False,
            )
        except (OSError, OverflowError) as error:
            raise PublisherError(_cannot_bind(self._host, self._port, error)) from error
        self._port = self._server.sockets[0].getsockname()[1]
        logger.info("serving ws://%s:%d", self._host, self._port)

    def publish(self, kind: str, payload: str) -> None:
        """Put a message into every outbox; `hello` is left out, each subscriber has had its own."""
        if kind == "hello":
            return
        if kind == "status":
            self._status = payload
        for outbox in self._outboxes:
            self.dropped += outbox.put(payload)

    async def run(self) -> None:
        """Accept subscribers; they are served by tasks of their own.

        Raises:
            PublisherError: If another program has taken the port since `open`.
            Exception: Whatever `hello` or a connection's task raised unexpectedly.
        """
        assert self._server is not None, "open() comes first"
        try:
            await self._server.start_serving()
        except OSError as error:
            raise PublisherError(_cannot_bind(self._host, self._port, error)) from error
        await self._failed.wait()
        assert self._error is not None
        raise self._error

    async def close(self) -> None:
        """Send what waits, close every connection with 1001, then cut those that do not answer."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close(close_connections=False)
        for outbox in self._outboxes:
            outbox.end()
        try:
            async with asyncio.timeout(_GOODBYE):
                await server.wait_closed()
        except TimeoutError:
            for connection in self._connections:
                connection.transport.abort()
            async with asyncio.timeout(_LAST_TASKS):
                await server.wait_closed()

    async def _handle(self, connection: ServerConnection) -> None:
        try:
            if len(self._outboxes) < self._max_subscribers:
                await self._serve(connection)
            else:
                await connection.close(CloseCode.TRY_AGAIN_LATER, "too many subscribers")
        except Exception as error:
            self._error = error
            self._failed.set()
            raise

    async def _serve(self, connection: ServerConnection) -> None:
        first = [self._hello()] if self._status is None else [self._hello(), self._status]
        outbox: Outbox[str] = Outbox(self._queue)
        self._outboxes.add(outbox)
        logger.info("subscriber %s came", connection.id)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(
                    _read(connection, outbox), name=f"tamulag.websocket.read.{connection.id}"
                )
                await self._deliver(connection, first, outbox)
                await connection.close(CloseCode.GOING_AWAY, "the stream has ended")
        finally:
            self._outboxes.discard(outbox)
            logger.info("subscriber %s left, %d dropped", connection.id, outbox.dropped)

    async def _deliver(
        self, connection: ServerConnection, first: list[str], outbox: Outbox[str]
    ) -> None:
        _limit_send_buffer(connection)
        with contextlib.suppress(ConnectionClosed):
            for payload in first:
                await self._send(connection, payload)
            async for payload in outbox:
                await self._send(connection, payload)

    async def _send(self, connection: ServerConnection, payload: str) -> None:
        try:
            async with asyncio.timeout(self._send_timeout):
                await connection.send(payload)
        except TimeoutError:
            # A ping or a close frame would wait behind the same full buffer for ever.
            logger.warning("subscriber %s does not read: cut", connection.id)
            connection.transport.abort()


async def _read(connection: ServerConnection, outbox: Outbox[str]) -> None:
    # Unread frames would fill the incoming queue and hide pongs and the close frame behind them.
    with contextlib.suppress(ConnectionClosed):
        async for _ in connection:
            pass
    outbox.end()


def _remembered_in(connections: WeakSet[ServerConnection]) -> type[ServerConnection]:
    # The server itself lists a connection after its handshake only, too late to cut one in it.
    class Connection(ServerConnection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            connections.add(self)
            super().connection_made(transport)

    return Connection


def _limit_send_buffer(connection: ServerConnection) -> None:
    sock = connection.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)


def _loopback(host: str, port: int) -> str:
    # One family only: with port 0 each family would get a port of its own.
    address = "127.0.0.1" if host == "localhost" else host
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(address).is_loopback:
            return address
    raise PublisherError(
        f"{host} is not a loopback address and only those are served: "
        f"use --websocket 127.0.0.1:{port}"
    )


def _cannot_bind(host: str, port: int, error: OSError | OverflowError) -> str:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {host} is in use: "
            "stop the other program or choose another with --websocket HOST:PORT"
        )
    reason = getattr(error, "strerror", None) or error
    return f"cannot serve {host}:{port} ({reason}): choose another with --websocket HOST:PORT"
