"""Subscribers of single sessions, on a server of many.

Knows subscribers and names of sessions. Knows no server; of messages the end of a session alone.
"""

import asyncio

from .connection import Connection, text_frame

HANDED_OVER = '"reason":"handed_over"'
"""Part of a session_end whose session continues on another server."""


class SessionSubscribers:
    """Subscribers by the session that they requested."""

    def __init__(self) -> None:
        self.dropped = 0
        """Messages dropped for slow subscribers."""
        self._subscribers: dict[str, set[Connection]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def add(self, session: str, subscriber: Connection) -> None:
        """Add a subscriber of a session."""
        self._subscribers.setdefault(session, set()).add(subscriber)

    def discard(self, session: str, subscriber: Connection) -> None:
        """Remove a subscriber that has left."""
        subscribers = self._subscribers.get(session, set())
        subscribers.discard(subscriber)
        if not subscribers:
            self._subscribers.pop(session, None)

    def deliver(self, session: str, kind: str, payload: str) -> None:
        """Send a message to the subscribers of its session, and close them after its end.

        The name may be used by another session afterwards.
        """
        subscribers = self._subscribers.get(session)
        if not subscribers or kind == "hello":
            return
        frame = text_frame(payload)
        for subscriber in subscribers:
            self.dropped += subscriber.deliver(frame)
        if kind == "session_end" and HANDED_OVER not in payload:
            for subscriber in self._subscribers.pop(session):
                task = asyncio.create_task(subscriber.finish(), name="tamulag.follower")
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
