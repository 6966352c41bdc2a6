"""Connections from accept on, until they are known: bounded together and for each address.

Knows sockets, addresses and their number. Knows no request and no message.

When too many are pending, the oldest of the address that has most of them is cut: a flood
pushes out connections of its own address, not a newcomer.
"""

import asyncio
import contextlib
import errno
import logging
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from .access_control import network
from .connection import BUSY, CROWDED, MAX_REQUEST, Connection

logger = logging.getLogger("tamulag.websocket")

REPORT = 10.0
"""Seconds between two lines of the log that say how many connections were cut."""

_NO_FILES = (errno.EMFILE, errno.ENFILE)


@dataclass(eq=False)
class _Pending:
    """One connection that is not known yet."""

    sock: socket.socket
    peer: str
    connection: Connection | None = None
    """Once its handshake of TLS, if any, is done."""


class PendingConnections:
    """Every open connection, and which of them are pending.

    Args:
        most: Pending ones at once.
        per_address: Open ones of one address.
        clock: Monotonic clock, seconds.
    """

    def __init__(self, most: int, per_address: int, clock: Callable[[], float]) -> None:
        self.open: set[Connection] = set()
        self.refused: Counter[str] = Counter()
        self._most = most
        self._per_address = per_address
        self._clock = clock
        self._peers: Counter[str] = Counter()
        self._pending: dict[_Pending, None] = {}  # oldest first
        self._cut = 0
        self._reported = -REPORT

    def accept(self, sock: socket.socket, address: object) -> bool:
        """Count a connection that was accepted; return whether its address may have one more."""
        peer = network(str(address[0])) if isinstance(address, tuple) and address else "unknown"
        self._forget_closed()
        same = sum(one.peer == peer and one.connection is None for one in self._pending)
        if self._peers[peer] + same >= self._per_address:
            self.count("too many from one address", peer)
            return False
        self._pending[_Pending(sock, peer)] = None
        self.make_room()
        return True

    def add(self, connection: Connection) -> bool:
        """Take over a connection whose handshake of TLS, if any, is done; False: it was cut."""
        fileno = connection.transport.get_extra_info("socket").fileno()
        self.open.add(connection)
        self._peers[connection.peer] += 1
        for one in self._pending:
            if one.connection is None and one.sock.fileno() == fileno:
                one.connection = connection
                return True
        return False

    def settle(self, connection: Connection) -> None:
        """Note that a connection is known: it is pending no more."""
        for one in [one for one in self._pending if one.connection is connection]:
            del self._pending[one]

    def discard(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        self.settle(connection)
        self.open.discard(connection)
        self._peers[connection.peer] -= 1
        if self._peers[connection.peer] <= 0:
            del self._peers[connection.peer]

    def make_room(self, most: int | None = None) -> bool:
        """Cut pending connections beyond a number; return whether any was cut."""
        self._forget_closed()
        has_cut = False
        for _ in range(len(self._pending) - (self._most if most is None else most)):
            has_cut = self._cut_oldest() or has_cut
        return has_cut

    def is_out_of_files(self) -> bool:
        """Free a file for a connection that could not be accepted; return whether one was cut."""
        return self.make_room(max(len(self._pending) - 1, 0))

    def count(self, reason: str, peer: str) -> None:
        """Count a connection that was cut, and log that now and then."""
        self.refused[reason] += 1
        self._cut += 1
        if self._clock() - self._reported >= REPORT:
            self._reported = self._clock()
            text = "%d connections cut, the newest of %s: %s"
            logger.warning(text, self._cut, peer, reason)
            self._cut = 0

    def _cut_oldest(self) -> bool:
        if not self._pending:
            return False
        peers = Counter(one.peer for one in self._pending)
        busiest = max(peers, key=lambda peer: peers[peer])
        self.count(CROWDED, busiest)
        one = next(one for one in self._pending if one.peer == busiest)
        del self._pending[one]
        if one.connection is None:
            _shut(one.sock)
        else:
            one.connection.turn_away()
        return True

    def _forget_closed(self) -> None:
        gone = [one for one in self._pending if one.connection is None and one.sock.fileno() < 0]
        for one in gone:
            del self._pending[one]


class CountedSocket(socket.socket):
    """A listening socket that asks before it hands a connection to asyncio."""

    pending: PendingConnections
    is_plain: bool
    """Without TLS: a refused connection can be answered."""

    def accept(self) -> tuple[socket.socket, object]:
        """Accept one; see socket.socket. What is refused looks as if nobody had come."""
        try:
            sock, address = super().accept()
        except OSError as error:
            # asyncio would log each attempt, and stop for a second.
            if error.errno in _NO_FILES and self.pending.is_out_of_files():
                raise BlockingIOError from None
            raise
        if not self.pending.accept(sock, address):
            if self.is_plain:
                _send_busy(sock)
            sock.close()
            raise BlockingIOError
        return sock, address


def count_from_accept(
    server: asyncio.Server, pending: PendingConnections, *, is_plain: bool
) -> None:
    """Let the sockets of a server that does not serve yet be counted from accept.

    asyncio reports a connection after its handshake of TLS alone, so its sockets are replaced.
    """
    sockets: list[socket.socket] = server._sockets  # type: ignore[attr-defined]
    for place, sock in enumerate(sockets):
        counted = CountedSocket(sock.family, sock.type, sock.proto, fileno=sock.detach())
        counted.setblocking(False)
        counted.pending = pending
        counted.is_plain = is_plain
        sockets[place] = counted


def _send_busy(sock: socket.socket) -> None:
    """Answer 503 without waiting for anything."""
    with contextlib.suppress(OSError):
        sock.setblocking(False)
        sock.send(BUSY)
        sock.recv(MAX_REQUEST)  # closed with bytes unread, it would take the answer back


def _shut(sock: socket.socket) -> None:
    """End a connection whose transport has it still; that closes it."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:  # the other end was faster
        return
