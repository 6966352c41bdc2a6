"""One connection to a subscriber: what waits for it, what it may say, when it is cut.

Knows one peer, through `websockets`. Knows nothing of the others, and nothing of what is said.
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

logger = logging.getLogger("tamulag.websocket")

_SEND_BUFFER = 64 * 1024
"""Bytes the system may hold for one subscriber: what waits there cannot be dropped for newer."""

_LAST_WORD = 1.0
"""Seconds that a peer has to take the close frame that tells it why it must go."""


def text_frame(payload: str) -> bytes:
    """Return a message as it goes over the wire, the same for every subscriber."""
    return Frame(Opcode.TEXT, payload.encode()).serialize(mask=False)


_PING = Frame(Opcode.PING, b"").serialize(mask=False)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What subscribers may cost.

    Attributes:
        subscribers: At once; one more is refused with close code 1013.
        per_address: Connections of one address.
        pending: Connections that are no subscribers yet: in their handshake, without token.
        queue: Messages that may wait for one subscriber.
        message: Bytes that a subscriber may say at once.
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
    """How much may come: a rate, and what is saved up while nothing comes.

    Args:
        rate: In a second.
        most: That can be saved up; so much is there at first.
        now: Any steady clock, seconds.
    """

    def __init__(self, rate: float, most: float, now: float) -> None:
        self._rate, self._most = rate, most
        self._left, self._looked = most, now

    def take(self, amount: float, now: float) -> bool:
        """Take some; return whether so much was left."""
        saved = self._left + (now - self._looked) * self._rate
        self._left, self._looked = min(self._most, saved) - amount, now
        return self._left >= 0


@dataclass(frozen=True, kw_only=True)
class ConnectionPolicy:
    """What a connection may ask of the server.

    Attributes:
        limits: For each.
        missed: Makes the payload that tells how many messages were missed.
        came: Told of a new connection; returns why it is refused, or None.
        left: Told of a lost one.
        failed: Told of an error that is a bug.
    """

    limits: Limits
    missed: Callable[[int], str]
    came: Callable[["Connection"], str | None]
    left: Callable[["Connection"], None]
    failed: Callable[[Exception], None]


class Connection(ServerConnection):
    """A connection; it becomes a subscriber when the server says so.

    A message goes straight to the socket if nothing is in its way; else it waits, and the oldest
    that waits is dropped when there are too many. The system holds 64 KiB for one subscriber, the
    process one message and what waits.
    """

    def __init__(
        self, protocol: ServerProtocol, server: Server, house: ConnectionPolicy, **rest: Any
    ) -> None:
        super().__init__(protocol, server, **rest)
        self.peer = "unknown"
        self.is_known = False
        self.dropped = 0
        self._house = house
        self._untold = 0
        self._waiting: deque[bytes] = deque(maxlen=house.limits.queue)
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._patience: asyncio.TimerHandle | None = None
        self._heard = self._pinged = self._looked = self.loop.time()
        self._frames = TokenBucket(house.limits.rate, house.limits.rate, self._heard)

    def deliver(self, frame: bytes) -> int:
        """Send a frame or let it wait; return how many messages were dropped for it, 0 or 1."""
        if self.protocol.state is not State.OPEN:
            return 0
        if self._patience is None and not self._waiting:
            self.transport.write(frame)
            return 0
        dropped = int(len(self._waiting) == self._waiting.maxlen)
        self._waiting.append(frame)
        self._emptied.clear()
        self._untold += dropped
        self.dropped += dropped
        return dropped

    def allow(self, *, size: int, rate: int, patience: float) -> None:
        """Let the peer say more than a subscriber may: it has shown that it is a sender.

        Args:
            size: Bytes of a frame.
            rate: Frames within a second.
            patience: Seconds of frames that may come at once, after the network stood still.
        """
        self.protocol.max_message_size = size
        self._frames = TokenBucket(rate, rate * patience, self.loop.time())

    async def listen(self) -> None:
        """Read and forget what the peer says, until the connection is closed."""
        # Unread frames would fill the incoming queue and hide pongs and the close frame.
        with contextlib.suppress(ConnectionClosed):
            async for _ in self:
                pass

    async def leave(self) -> None:
        """Wait until nothing waits for the peer any more, and close with 1001."""
        await self._emptied.wait()
        await self.close(CloseCode.GOING_AWAY, "the stream has ended")

    def look_after(self, now: float) -> None:
        """Ping the peer if it was quiet; cut it if it owes an answer for too long."""
        limits = self._house.limits
        # While the loop itself stood still nobody was heard: that is not the peer's silence.
        stood = max(0.0, now - self._looked - limits.heartbeat)
        self._heard = min(now, self._heard + stood)
        self._looked = now
        if now - self._heard > limits.heartbeat + limits.send_timeout:
            self._give_up()
        elif min(now - self._heard, now - self._pinged) >= limits.heartbeat and self._is_free():
            self._pinged = now
            self.transport.write(_PING)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: see asyncio.Protocol."""
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        address = transport.get_extra_info("peername")
        self.peer = network(address[0]) if address else self.peer
        refusal = self._house.came(self)
        if refusal:
            logger.warning("connection from %s cut: %s", self.peer, refusal)
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End: see asyncio.Protocol."""
        super().connection_lost(exc)
        self._stop_waiting()
        self._waiting.clear()
        self._emptied.set()
        self._house.left(self)

    def pause_writing(self) -> None:
        """Let messages wait, but not for ever: see asyncio.Protocol."""
        super().pause_writing()
        self._patience = self.loop.call_later(self._house.limits.send_timeout, self._give_up)

    def resume_writing(self) -> None:
        """Send what waits: see asyncio.Protocol."""
        super().resume_writing()
        self._stop_waiting()
        self.loop.call_soon(self._catch_up)

    def process_event(self, event: Event) -> None:
        """Count what the peer says, and end it if that is too much; see websockets."""
        self._heard = self.loop.time()
        if isinstance(event, Frame) and self._is_flood():
            self.throw_out("too many messages")
        else:
            super().process_event(event)

    def throw_out(self, reason: str) -> None:
        """Close with 1008 at once, and cut the connection soon after."""
        if self.protocol.state is State.OPEN:
            logger.warning("subscriber %s from %s: %s", self.id, self.peer, reason)
            self.protocol.fail(CloseCode.POLICY_VIOLATION, reason)
            self.send_data()
            self.loop.call_later(_LAST_WORD, self.transport.abort)

    def _is_free(self) -> bool:
        return self._patience is None and self.protocol.state is State.OPEN

    def _is_flood(self) -> bool:
        return not self._frames.take(1, self._heard)

    def _catch_up(self) -> None:
        try:
            while self._waiting and self._is_free():
                self.transport.write(self._next())
        except Exception as error:
            self._house.failed(error)
        if not self._waiting:
            self._emptied.set()

    def _next(self) -> bytes:
        """Return what goes out next: how many were missed, else the oldest that waits."""
        untold, self._untold = self._untold, 0
        return text_frame(self._house.missed(untold)) if untold else self._waiting.popleft()

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        # A ping or a close frame would wait behind the same full buffer for ever.
        logger.warning("subscriber %s from %s does not read: cut", self.id, self.peer)
        self.transport.abort()
