"""Who follows which of many sessions.

Knows subscribers and names. Knows no server, and nothing of what is said.
"""

import asyncio
from urllib.parse import parse_qs, urlsplit

from .connection import Connection, text_frame

HANDED_OVER = '"reason":"handed_over"'
"""In the end of a session that goes on elsewhere."""


class SessionSubscribers:
    """Subscribers by the session that they have asked for."""

    def __init__(self) -> None:
        self.dropped = 0
        """Messages that somebody was too slow for."""
        self._followers: dict[str, set[Connection]] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    def add(self, session: str, subscriber: Connection) -> None:
        """Let somebody follow a session."""
        self._followers.setdefault(session, set()).add(subscriber)

    def discard(self, session: str, subscriber: Connection) -> None:
        """Forget somebody who has left."""
        followers = self._followers.get(session, set())
        followers.discard(subscriber)
        if not followers:
            self._followers.pop(session, None)

    def deliver(self, session: str, kind: str, payload: str) -> None:
        """Send a message to those who follow its session; with its end they are closed.

        Another session may have the name next.
        """
        followers = self._followers.get(session)
        if not followers or kind == "hello":
            return
        frame = text_frame(payload)
        for follower in followers:
            self.dropped += follower.deliver(frame)
        if kind == "session_end" and HANDED_OVER not in payload:
            for follower in self._followers.pop(session):
                task = asyncio.create_task(follower.leave(), name="tamulag.follower")
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)


def session_of(target: str) -> str | None:
    """Return which session the address of a subscriber asks for; None: the server itself."""
    return next(iter(parse_qs(urlsplit(target).query).get("session", [])), None)
