"""One WebSocket connection: its send queue, its limits, and when it is cut.

Knows one peer, through `websockets`. Knows no other connection and no content of messages.
"""

import asyncio
import contextlib
import logging
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.server import Server, ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Event, State
from websockets.server import ServerProtocol

from .access_control import network
from .rights import Rights

logger = logging.getLogger("tamulag.websocket")

_SEND_BUFFER = 64 * 1024
"""Bytes the kernel may buffer for one subscriber: what is there cannot be dropped for newer."""

MAX_REQUEST = 32 * 1024
"""Bytes that a peer may send until its request is read: a request line, headers, cookies."""

CROWDED = "too many without handshake or token"

_BUSY_TEXT = "too many connections: try again soon\n"

BUSY = (
    "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n"
    f"Content-Type: text/plain\r\nContent-Length: {len(_BUSY_TEXT)}\r\n\r\n{_BUSY_TEXT}"
).encode()
"""Answer to a connection that there is no room for, whatever it asks."""

_CLOSE_FRAME_LIMIT = 1.0
"""Seconds that a peer has to receive the close frame with the reason."""


async def end_handlers(server: Server, limit: float) -> int:
    """Wait for what still serves the connections of a closed server, then cancel it.

    Args:
        server: Closed.
        limit: Seconds, before and after.

    Returns:
        How many had to be cancelled.
    """
    closed = asyncio.ensure_future(server.wait_closed())
    await asyncio.wait([closed], timeout=limit)
    late = [task for task in server.handler_tasks if not task.done()]
    for task in late:
        task.cancel()
    await asyncio.wait([closed], timeout=limit)
    closed.cancel()
    return len(late)


def text_frame(payload: str) -> bytes:
    """Return a message as a wire frame, the same for every subscriber."""
    return Frame(Opcode.TEXT, payload.encode()).serialize(mask=False)


_PING = Frame(Opcode.PING, b"").serialize(mask=False)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Resource limits of subscribers.

    Attributes:
        subscribers: Simultaneous subscribers; one more is refused with close code 1013.
        per_address: Connections of one address.
        pending: Connections that are no subscribers yet: in their handshake, without token.
        queue: Messages queued for one subscriber.
        message: Bytes of one message of a subscriber.
        rate: Frames that a subscriber may send within a second, pings and pongs included.
        send_timeout: Seconds a subscriber may block a send, or owe a pong.
        heartbeat: Seconds of silence after which it is pinged.
    """

    subscribers: int = 1000
    per_address: int = 1000
    pending: int = 256
    queue: int = 8
    message: int = 4096
    rate: int = 20
    send_timeout: float = 3.0
    heartbeat: float = 1.0


class TokenBucket:
    """A rate limit with a burst.

    Args:
        rate: Units per second.
        most: Largest burst, available at the start.
        now: Seconds of a monotonic clock.
    """

    def __init__(self, rate: float, most: float, now: float) -> None:
        self._rate, self._most = rate, most
        self._left, self._last_check = most, now

    def take(self, amount: float, now: float) -> bool:
        """Consume an amount; return whether that much was available."""
        saved = self._left + (now - self._last_check) * self._rate
        self._left, self._last_check = min(self._most, saved) - amount, now
        return self._left >= 0


@dataclass(frozen=True, kw_only=True)
class ConnectionPolicy:
    """The server's limits and callbacks for each connection.

    Attributes:
        limits: Limits of each connection.
        missed: Returns the payload that reports how many messages were missed.
        on_connect: Called with a new connection; returns the reason to refuse it, or None.
        on_disconnect: Called with a lost connection.
        on_error: Called with an error that is a bug.
        on_flood: Called with a connection whose request is too long.
    """

    limits: Limits
    missed: Callable[[int], str]
    on_connect: Callable[["Connection"], str | None]
    on_disconnect: Callable[["Connection"], None]
    on_error: Callable[[Exception], None]
    on_flood: Callable[["Connection"], None]


class Connection(ServerConnection):
    """A connection; the server decides whether it becomes a subscriber.

    A message is written to the socket at once if nothing is queued; otherwise it is queued, and the
    oldest is dropped when the queue is full. The kernel buffers 64 KiB for one subscriber, the
    process one message and the queue.
    """

    def __init__(
        self, protocol: ServerProtocol, server: Server, policy: ConnectionPolicy, **rest: Any
    ) -> None:
        super().__init__(protocol, server, **rest)
        self.peer = "unknown"
        self.rights: Rights | None = None  # none is known until a token has come
        self.dropped = 0
        self._policy = policy
        self._unreported = 0
        self._requested = 0
        self._waiting: deque[bytes] = deque(maxlen=policy.limits.queue)
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._send_timer: asyncio.TimerHandle | None = None
        self._last_seen = self._pinged = self._last_check = self.loop.time()
        self._frames = TokenBucket(policy.limits.rate, policy.limits.rate, self._last_seen)

    def deliver(self, frame: bytes) -> int:
        """Send or queue a frame; return how many messages were dropped for it, 0 or 1."""
        if self.protocol.state is not State.OPEN:
            return 0
        if self._send_timer is None and not self._waiting:
            self.transport.write(frame)
            return 0
        dropped = int(len(self._waiting) == self._waiting.maxlen)
        self._waiting.append(frame)
        self._emptied.clear()
        self._unreported += dropped
        self.dropped += dropped
        return dropped

    def allow(self, *, size: int, rate: int, burst: float) -> None:
        """Raise the limits of a peer that has identified itself as a sender.

        Args:
            size: Bytes of a frame.
            rate: Frames within a second.
            burst: Seconds of frames that may arrive at once, after the network stalled.
        """
        self.protocol.max_message_size = size
        self._frames = TokenBucket(rate, rate * burst, self.loop.time())

    async def listen(self) -> None:
        """Read and discard what the peer sends, until the connection is closed."""
        # Unread frames would fill the incoming queue and hide pongs and the close frame.
        with contextlib.suppress(ConnectionClosed):
            async for _ in self:
                pass

    async def finish(self) -> None:
        """Wait until the queue is sent, then close with 1001."""
        await self._emptied.wait()
        await self.close(CloseCode.GOING_AWAY, "the stream has ended")

    def check(self, now: float) -> None:
        """Ping a silent peer; cut it if it owes a pong for too long. `now`: loop time, seconds."""
        limits = self._policy.limits
        # While the loop itself was blocked nothing could arrive: that is not the peer's silence.
        stood = max(0.0, now - self._last_check - limits.heartbeat)
        self._last_seen = min(now, self._last_seen + stood)
        self._last_check = now
        if now - self._last_seen > limits.heartbeat + limits.send_timeout:
            self._cut()
        elif min(now - self._last_seen, now - self._pinged) >= limits.heartbeat and self._is_free():
            self._pinged = now
            self.transport.write(_PING)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection; see asyncio.Protocol."""
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        address = transport.get_extra_info("peername")
        self.peer = network(address[0]) if address else self.peer
        refusal = self._policy.on_connect(self)
        if refusal:
            logger.warning("connection from %s cut: %s", self.peer, refusal)
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Read bytes, of a request no more than `MAX_REQUEST`; see asyncio.Protocol."""
        if self.protocol.state is State.CONNECTING:
            self._requested += len(data)
            if self._requested > MAX_REQUEST:
                self._policy.on_flood(self)
                self.transport.abort()
                return
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Clear the queue; see asyncio.Protocol."""
        super().connection_lost(exc)
        self._cancel_timer()
        self._waiting.clear()
        self._emptied.set()
        self._policy.on_disconnect(self)

    def pause_writing(self) -> None:
        """Start to queue messages, for a limited time; see asyncio.Protocol."""
        super().pause_writing()
        self._send_timer = self.loop.call_later(self._policy.limits.send_timeout, self._cut)

    def resume_writing(self) -> None:
        """Send the queue; see asyncio.Protocol."""
        super().resume_writing()
        self._cancel_timer()
        self.loop.call_soon(self._catch_up)

    def process_event(self, event: Event) -> None:
        """Count the peer's frames, and close the connection above its rate; see websockets."""
        self._last_seen = self.loop.time()
        if isinstance(event, Frame) and self._is_flood():
            self.reject("too many messages")
        else:
            super().process_event(event)

    def reject(self, reason: str, code: int = CloseCode.POLICY_VIOLATION) -> None:
        """Close with a code at once, and cut the connection soon after."""
        if self.protocol.state is State.OPEN:
            logger.warning("subscriber %s from %s: %s", self.id, self.peer, reason)
            self.protocol.fail(code, reason)
            self.send_data()
            self.loop.call_later(_CLOSE_FRAME_LIMIT, self.transport.abort)

    def turn_away(self) -> None:
        """Cut a connection that there is no room for, with a reason if it can take one now."""
        if self.protocol.state is State.CONNECTING:
            self.transport.write(BUSY)
        elif self.protocol.state is State.OPEN:  # its token has not come yet
            self.protocol.fail(CloseCode.TRY_AGAIN_LATER, CROWDED)
            self.send_data()
        self.transport.abort()

    def _is_free(self) -> bool:
        return self._send_timer is None and self.protocol.state is State.OPEN

    def _is_flood(self) -> bool:
        return not self._frames.take(1, self._last_seen)

    def _catch_up(self) -> None:
        try:
            while self._waiting and self._is_free():
                self.transport.write(self._next())
        except Exception as error:
            self._policy.on_error(error)
        if not self._waiting:
            self._emptied.set()

    def _next(self) -> bytes:
        """Return the next frame: the report of missed messages, else the oldest in the queue."""
        untold, self._unreported = self._unreported, 0
        return text_frame(self._policy.missed(untold)) if untold else self._waiting.popleft()

    def _cancel_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _cut(self) -> None:
        # A ping or a close frame would wait behind the same full buffer for ever.
        logger.warning("subscriber %s from %s does not read: cut", self.id, self.peer)
        self.transport.abort()
