"""Publish messages to WebSocket subscribers: one server, many readers, newest wins.

Knows the WebSocket protocol, through `websockets`, and the port's few HTTP pages. Knows no content
of messages.
"""

import asyncio
import contextlib
import errno
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import cast

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from ..aio.threads import in_thread
from ..publishers.publisher import PublisherError
from .access_control import Access, is_loopback
from .connection import CROWDED, Connection, ConnectionPolicy, Limits, end_handlers, text_frame
from .http_messages import request_of, response_of
from .pending_connections import PendingConnections, count_from_accept
from .rights import NONE, Rights
from .routes import Page, Route, Router, session_of
from .session_subscribers import SessionSubscribers

logger = logging.getLogger("tamulag.websocket")

_protocol_logger = logging.getLogger("tamulag.websocket.protocol")
_protocol_logger.setLevel(logging.WARNING)  # lower levels log headers, and with them the token

INGEST = "/ingest"
"""Path of the WebSocket for senders."""

_REFUSED = (
    *(CloseCode.UNSUPPORTED_DATA, CloseCode.INVALID_DATA, CloseCode.POLICY_VIOLATION),
    *(CloseCode.MESSAGE_TOO_BIG, CloseCode.TRY_AGAIN_LATER),
)
"""Close codes of rejected senders."""

_DELAYED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS)

Receive = Callable[[Connection], Awaitable[None]]

SessionGreeting = Callable[[str], str | None]
"""Returns the first payload for a subscriber of the named session; None: no such session."""

_HANDSHAKE = 5.0
"""Seconds for the TLS handshake, for the request, and for the first message with the token."""

_CLOSE_ANSWER_LIMIT = 1.0
"""Seconds that a subscriber has to answer the close frame."""

_CHECK_INTERVAL = 0.1
"""Seconds between two checks for silent subscribers."""

_CLOSE_LIMIT = 1.5
"""Seconds that subscribers have to receive their queue and to answer the close frame."""

_TASK_LIMIT = 0.4
"""Seconds that the tasks of aborted connections have to end."""


class WebSocketPublisher:
    """Sends every message to every subscriber.

    A subscriber whose queue overflows loses its oldest messages and is informed how many. One that
    does not take a message within `send_timeout` is cut, and so is one that stops reading while so
    little is sent that its buffers never fill: it owes a pong, and is cut after
    `heartbeat + send_timeout`.

    Args:
        access: The address, and the requirements of clients.
        port: TCP port; 0 lets the system choose, see `port`.
        hello: Returns the first payload for each new subscriber; called at that time.
        missed: Returns the payload that reports how many messages a subscriber missed.
        routes: HTTP pages, by path.
        limits: Resource limits of subscribers.
        receive: Serves a sender at /ingest, until it leaves; None: there is no such path.
        greet: Returns the first payload for a subscriber of one of many sessions, requested by
            `/?session=NAME`; None: no session of that name.
    """

    name = "websocket"

    def __init__(
        self,
        access: Access | None = None,
        port: int = 8765,
        *,
        hello: Callable[[], str],
        missed: Callable[[int], str],
        routes: Mapping[str, Route] | None = None,
        limits: Limits | None = None,
        receive: Receive | None = None,
        greet: SessionGreeting | None = None,
    ) -> None:
        self._dropped = 0
        self._access = access or Access()
        self._receive = receive
        self._greet = greet
        self._by_session = SessionSubscribers()
        websockets = ("/",) if receive is None else ("/", INGEST)
        self._router = Router(
            access=self._access,
            routes=routes or {},
            websockets=websockets,
            has_sessions=greet is not None,
        )
        self._port = port
        self._hello = hello
        self._limits = limits or Limits()
        self._policy = ConnectionPolicy(
            limits=self._limits,
            missed=missed,
            on_connect=self._on_connect,
            on_disconnect=self._on_disconnect,
            on_error=self._on_error,
            on_flood=lambda one: self._pending.count("a request too long", one.peer),
        )
        self._status: str | None = None
        self._server: Server | None = None
        self._pending = PendingConnections(
            self._limits.pending, self._limits.per_address, time.monotonic
        )
        self.refused = self._pending.refused
        self._subscribers: set[Connection] = set()
        self._unfiltered: set[Connection] = set()  # subscribers that follow no single session
        self._senders: set[Connection] = set()
        self._error: Exception | None = None
        self._failed = asyncio.Event()
        # One deferred page at a time: many requests must not start many threads.
        self._deferred = asyncio.Semaphore(1)

    @property
    def dropped(self) -> int:
        """Messages dropped for slow subscribers."""
        return self._dropped + self._by_session.dropped

    @property
    def port(self) -> int:
        """The port that is served; valid after `open`."""
        return self._port

    @property
    def is_serving(self) -> bool:
        """Whether connections are accepted."""
        return self._server is not None and self._server.is_serving()

    @property
    def url(self) -> str:
        """URL to connect to; valid after `open`."""
        host = f"[{self._access.host}]" if ":" in self._access.host else self._access.host
        return f"{'wss' if self._access.tls else 'ws'}://{host}:{self._port}/"

    @property
    def subscribers(self) -> int:
        """Number of connected subscribers."""
        return len(self._subscribers)

    async def open(self) -> None:
        """Bind the port; subscribers are accepted from `run` on, when `hello` is available.

        Raises:
            PublisherError: If the port is not free or the address not of this machine.
        """
        create = partial(Connection, policy=self._policy)
        try:
            self._server = await serve(
                self._handle,
                self._access.host,
                self._port,
                ssl=self._access.tls,
                compression=None,
                process_request=self._answer,
                server_header=None,
                open_timeout=_HANDSHAKE,
                # Own pings, see Connection.check: these block for ever behind a full buffer.
                ping_interval=None,
                close_timeout=_CLOSE_ANSWER_LIMIT,
                max_size=self._limits.message,
                write_limit=1,
                logger=_protocol_logger,
                create_connection=cast(type[ServerConnection], create),
                start_serving=False,
                backlog=min(self._limits.pending, 1024),
            )
        except (OSError, OverflowError) as error:
            raise PublisherError(self._cannot_bind(error)) from error
        count_from_accept(self._server.server, self._pending, is_plain=self._access.tls is None)
        self._port = self._server.sockets[0].getsockname()[1]
        logger.info("serving %s", self.url)
        if self._access.tls is None and not is_loopback(self._access.host):
            logger.warning("the token goes to %s unencrypted", self.url)

    def publish(self, kind: str, payload: str) -> None:
        """Send a message to all; `hello` is skipped, each subscriber has received its own."""
        if kind == "hello":
            return
        if kind == "status":
            self._status = payload
        frame = text_frame(payload)
        for subscriber in self._unfiltered:
            self._dropped += subscriber.deliver(frame)

    def publish_of(self, session: str, kind: str, payload: str) -> None:
        """Send a message of one of many sessions to its subscribers."""
        self._by_session.deliver(session, kind, payload)

    async def run(self) -> None:
        """Accept subscribers, and ping or cut silent ones.

        Raises:
            PublisherError: If another program has taken the port since `open`.
            Exception: Any unexpected error of `hello` or a connection's task.
        """
        assert self._server is not None, "open() comes first"
        try:
            await self._server.start_serving()
        except OSError as error:
            raise PublisherError(self._cannot_bind(error)) from error
        clock = asyncio.get_running_loop().time
        while self._error is None:
            now = clock()
            for subscriber in self._subscribers:
                subscriber.check(now)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_INTERVAL):
                    await self._failed.wait()
        raise self._error

    async def close(self) -> None:
        """Send the queues, close each connection with 1001, then abort those without an answer."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close(close_connections=False)
        closing = asyncio.gather(*(one.finish() for one in (*self._subscribers, *self._senders)))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_LIMIT):
                await closing
                await server.wait_closed()
        # Handshakes too: nothing else would close them when the loop ends.
        for connection in tuple(self._pending.open):
            connection.transport.abort()
        if late := await end_handlers(server, _TASK_LIMIT):
            logger.warning("%d connections were still being served at the end: cut off", late)

    def _on_connect(self, connection: Connection) -> str | None:
        is_kept = self._pending.add(connection)
        if self._server is not None:
            return None if is_kept else CROWDED
        self.refused["the server is closing"] += 1
        return "the server is closing"

    def _on_disconnect(self, connection: Connection) -> None:
        self._pending.discard(connection)
        self._subscribers.discard(connection)
        self._unfiltered.discard(connection)

    def _on_error(self, error: Exception) -> None:
        self._error = error
        self._failed.set()

    def _answer(
        self, connection: ServerConnection, request: Request
    ) -> Response | Awaitable[Response] | None:
        assert isinstance(connection, Connection)
        try:
            page, connection.rights = self._router.answer(request_of(connection.peer, request))
        except Exception as error:
            self._on_error(error)
            raise
        if page is None:
            return None
        if page.later is not None:
            return self._defer(connection, partial(page.later, connection.rights or NONE))
        if page.status in _DELAYED:
            return self._delay(connection, page)
        return self._respond(connection, page)

    async def _delay(self, connection: Connection, page: Page) -> Response:
        """Answer a wrong token late; meanwhile the connection counts as pending."""
        await asyncio.sleep(self._router.delay(connection.peer))
        return self._respond(connection, page)

    async def _defer(self, connection: ServerConnection, make: Callable[[], Page]) -> Response:
        """Answer with a deferred page; a bug in it ends the publisher, as any other."""
        async with self._deferred:
            try:
                page = await in_thread("page", make)
            except Exception as error:
                self._on_error(error)
                raise
        return self._respond(connection, page)

    def _respond(self, connection: ServerConnection, page: Page) -> Response:
        if page.status >= 400:
            self.refused[f"{page.status.value} {page.status.phrase}"] += 1
        return response_of(connection, page)

    async def _handle(self, connection: ServerConnection) -> None:
        assert isinstance(connection, Connection)
        try:
            refusal = await self._refusal(connection)
            if refusal is None:
                await self._serve(connection)
            else:
                code, reason = refusal
                self.refused[reason] += 1
                await connection.close(code, reason)
        except Exception as error:
            self._on_error(error)
            raise
        finally:
            self._subscribers.discard(connection)
            self._unfiltered.discard(connection)
            self._senders.discard(connection)

    async def _serve(self, connection: Connection) -> None:
        assert connection.request is not None
        if self._receive is not None and connection.request.path.partition("?")[0] == INGEST:
            self._senders.add(connection)
            self._pending.settle(connection)
            await self._receive(connection)
            if connection.close_code in _REFUSED:
                self.refused[f"sender, {connection.close_code}"] += 1
            return
        session = session_of(connection.request.path) if self._greet else None
        if session is None:
            self._add_subscriber(connection, self._hello(), self._status)
            self._unfiltered.add(connection)
            await connection.listen()
        else:
            await self._serve_session(connection, session)
        logger.info("subscriber %s left, %d dropped", connection.id, connection.dropped)

    async def _serve_session(self, connection: Connection, session: str) -> None:
        """Serve a subscriber of one session of many."""
        assert self._greet is not None
        hello = self._greet(session)
        if hello is None:
            self.refused["no such session"] += 1
            await connection.close(CloseCode.POLICY_VIOLATION, "no such session")
            return
        self._by_session.add(session, connection)
        try:
            self._add_subscriber(connection, hello, None)
            await connection.listen()
        finally:
            self._by_session.discard(session, connection)

    async def _refusal(self, connection: Connection) -> tuple[CloseCode, str] | None:
        """Return the reason not to serve a connection, with the close code; None: serve it."""
        assert connection.request is not None
        rights = connection.rights or await self._rights_of(connection)
        if rights is None:
            return CloseCode.POLICY_VIOLATION, "no valid token"
        lacking = self._router.shuts_out(connection.request.path, rights)
        if lacking is not None:
            return CloseCode.POLICY_VIOLATION, lacking
        if len(self._subscribers) >= self._limits.subscribers:
            return CloseCode.TRY_AGAIN_LATER, "too many subscribers"
        return None

    async def _rights_of(self, connection: Connection) -> Rights | None:
        try:
            async with asyncio.timeout(_HANDSHAKE):
                rights = self._router.rights_of(await connection.recv(), connection.peer)
                if rights is None:
                    await asyncio.sleep(self._router.delay(connection.peer))
                return rights
        except (TimeoutError, ConnectionClosed):
            return None

    def _add_subscriber(self, connection: Connection, hello: str, status: str | None) -> None:
        connection.deliver(text_frame(hello))
        if status is not None:
            connection.deliver(text_frame(status))
        self._subscribers.add(connection)
        self._pending.settle(connection)
        logger.info("subscriber %s came from %s", connection.id, connection.peer)

    def _cannot_bind(self, error: OSError | OverflowError) -> str:
        host, port = self._access.host, self._port
        remedy = "choose another with --websocket HOST:PORT (WebSocket)"
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            return f"port {port} on {host} is in use: stop the other program or {remedy}"
        reason = getattr(error, "strerror", None) or error
        return f"cannot serve {host}:{port} ({reason}): {remedy}"
