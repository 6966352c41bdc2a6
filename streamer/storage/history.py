"""Publisher that stores messages of sessions in the history, and serves past sessions as pages.

Knows queue, thread and removal of old sessions. Knows no tables, and of messages their type alone.
"""

import asyncio
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs

from ..aio.background_writer import QueueThread
from ..aio.threads import in_thread
from ..protocol import messages
from ..publishers.publisher import PublisherError
from ..webserver.rights import NOT_YOURS, Rights
from ..webserver.routes import Page, Route
from .history_db import HistoryDb, HistoryError, HistoryFull, PastSession

logger = logging.getLogger("tamulag.history")

QUEUE = 4000
"""Messages that may wait for the disk, about ten minutes; one that does not fit is dropped."""

FLUSH = 0.5
"""Most seconds until a message is in the file; a kill loses the rest."""

PRUNE = 60.0
"""Seconds between two checks of the history's age and size."""

LIST_LIMIT = 500
"""Most sessions on the list page, the newest."""

PAGE_LIMIT = 500
"""Messages of one page; the next page starts after the last of them."""

NOT_STORED = frozenset(("heartbeat", "hello"))
"""Heartbeats hold no data, and `hello` is stored with the session itself."""


class _Entry(NamedTuple):
    session: str | None
    kind: str
    line: str


class History:
    """Writes messages to the history in a thread of its own; the event loop only queues them.

    A full or broken disk ends the history and not the session: `report` gets the reason, and later
    messages are counted in `dropped`.

    Args:
        path: The file; other processes may write to it at the same time.
        hello: Returns a session's `hello` by its name, None for the service's own session; called
            with the session's first message.
        report: Called with reason and detail when the history ends before its session; on the
            event loop.
        max_age: Seconds after which an ended session is removed.
        max_bytes: Size of the file above which the oldest sessions are removed.
    """

    name = "history"

    def __init__(
        self,
        path: Path,
        *,
        hello: Callable[[str | None], str | None],
        report: Callable[[str, str], None],
        max_age: float,
        max_bytes: int,
    ) -> None:
        self.dropped = 0
        self._path = path
        self._hello = hello
        self._report = report
        self._limits = (max_age, max_bytes)
        self._known: set[str | None] = set()  # sessions whose hello was queued
        self._keys: dict[str | None, int | None] = {}  # of sessions; None: removed meanwhile
        self._prune_due = 0.0
        self._writer: QueueThread[_Entry] | None = None
        self._bug: asyncio.Future[None] | None = None

    async def open(self) -> None:
        """Open the file, or create it.

        Raises:
            PublisherError: If it cannot be written, or is not a history.
        """
        try:
            store = await in_thread("history open", partial(HistoryDb, self._path, create=True))
        except HistoryError as error:
            raise PublisherError(str(error)) from error
        # The batch is more than may wait: messages of one interval are written together.
        write = partial(self._write, store)
        self._writer = QueueThread(self.name, write, store.close, batch=QUEUE + 2, interval=FLUSH)
        self._writer.failed.add_done_callback(self._on_failure)

    def publish(self, kind: str, payload: str) -> None:
        """Queue a message of the service's own session, if it has one."""
        self._add(None, kind, payload)

    def publish_of(self, session: str, kind: str, payload: str) -> None:
        """Queue a message of one of many sessions."""
        self._add(session, kind, payload)

    def _add(self, session: str | None, kind: str, payload: str) -> None:
        if kind in NOT_STORED:
            return
        hello = None if session in self._known else self._hello(session)
        if hello is None and session not in self._known:
            return
        entries = [_Entry(session, "hello", hello)] if hello is not None else []
        entries.append(_Entry(session, kind, payload))
        writer = self._writer
        if writer is None or writer.waiting >= QUEUE or not writer.put(*entries):
            self.dropped += 1
        elif kind == "session_end":
            self._known.discard(session)
        else:
            self._known.add(session)

    async def run(self) -> None:
        """Wait for an error that is not the disk's: a bug, which is raised."""
        self._bug = asyncio.get_running_loop().create_future()
        await self._bug

    async def close(self) -> None:
        """Write the queue, for `STOP_LIMIT` seconds at most."""
        if self._writer is not None and not await self._writer.end():
            logger.warning("%s takes too long: its last messages are lost", self._path)

    def routes(self) -> Mapping[str, Route]:
        """Return the routes by path: the list of sessions, and below it each session."""
        return {"/sessions": Route(make=self._list_page, below=self._session_page)}

    def _write(self, store: HistoryDb, entries: list[_Entry]) -> None:
        self._store_all(store, entries)
        if time.monotonic() >= self._prune_due or store.size > self._limits[1]:
            self._prune(store, {key for key in self._keys.values() if key is not None})
            self._prune_due = time.monotonic() + PRUNE

    def _store_all(self, store: HistoryDb, entries: list[_Entry]) -> None:
        """Write entries, the messages of each session together.

        Args:
            store: The history.
            entries: In the order of their messages.

        Raises:
            HistoryError: If the service's own session was removed.
            sqlite3.Error: If nothing can be written.
        """
        waiting: dict[str | None, list[str]] = {}
        for session, kind, line in entries:
            if kind == "hello":
                self._keys[session] = store.begin(line)
                continue
            waiting.setdefault(session, []).append(line)
            if kind == "session_end":
                self._append(store, session, waiting.pop(session))
                del self._keys[session]
        for session, lines in waiting.items():
            self._append(store, session, lines)

    def _append(self, store: HistoryDb, session: str | None, lines: list[str]) -> None:
        key = self._keys[session]
        if key is None:
            return
        try:
            store.append(key, lines)
        except HistoryError as error:
            if session is None:
                raise
            self._keys[session] = None
            logger.warning("session %s: %s", session, error)

    def _prune(self, store: HistoryDb, keys: Collection[int]) -> None:
        max_age, max_bytes = self._limits
        old, room = store.prune(keys, now=time.time(), max_age=max_age, max_bytes=max_bytes)
        if old:
            logger.info("%s: %d sessions were too old and are removed", self._path, old)
        if room:
            logger.warning("%s: the %d oldest sessions are removed for room", self._path, room)

    def _on_failure(self, failed: asyncio.Future[BaseException]) -> None:
        assert self._writer is not None
        error = failed.result()
        reason, detail = self._reason(error)
        logger.warning("the history ends before its session: %s", detail)
        if not self._writer.is_ending:
            self._report(reason, detail)
        self.dropped += self._writer.abandon()
        if reason == "bug" and self._bug and not self._bug.done():
            self._bug.set_exception(error)

    def _reason(self, error: BaseException) -> tuple[str, str]:
        """Return why the history ends, as a word and as a line for people."""
        if isinstance(error, HistoryError):
            return ("full" if isinstance(error, HistoryFull) else "removed"), str(error)
        if isinstance(error, sqlite3.Error):
            return ("disk_full" if _is_full(error) else "disk_error"), f"{self._path}: {error}"
        return "bug", repr(error)

    def _list_page(self) -> Page:
        return Page(HTTPStatus.OK, "", later=partial(_answer, self._list))

    def _session_page(self, rest: str) -> Page:
        name, _, query = rest.partition("?")
        after = parse_qs(query).get("after", ["0"])[0]
        if not (after.isascii() and after.isdecimal() and len(after) < 10):
            return _json(HTTPStatus.BAD_REQUEST, {"error": "after: must be the seq of a message"})
        return Page(HTTPStatus.OK, "", later=partial(_answer, self._session, name, int(after)))

    def _list(self, rights: Rights) -> Page:
        with HistoryDb(self._path) as store:
            found = store.sessions(LIST_LIMIT)
        mine = [summary(past) for past in found if rights.may_read(past.hello["session"])]
        return _json(HTTPStatus.OK, mine)

    def _session(self, name: str, after: int, rights: Rights) -> Page:
        with HistoryDb(self._path) as store:
            past = _readable(store, name, rights)
            if past is None:
                return _json(HTTPStatus.FORBIDDEN, {"error": NOT_YOURS})
            head = json.dumps(summary(past))
            lines = list(store.messages(name, after=after, limit=PAGE_LIMIT))
        following = json.loads(lines[-1])["seq"] if len(lines) == PAGE_LIMIT else None
        rows = ",\n".join(lines)
        body = f'{{"session":{head},"next":{json.dumps(following)},"messages":[\n{rows}\n]}}\n'
        return Page(HTTPStatus.OK, body, "application/json")


def _readable(store: HistoryDb, name: str, rights: Rights) -> PastSession | None:
    """Return a session; None: it is not for these rights, whether it is there or not.

    Raises:
        HistoryError: If it may be read and is not there.
    """
    try:
        past = store.session(name)
    except HistoryError:
        if rights.may_read(name):
            raise
        return None
    # Its own name counts: the number behind an id may make it that of another session.
    return past if rights.may_read(past.hello["session"]) else None


def summary(past: PastSession) -> dict[str, object]:
    """Return a session's entry in a list as JSON-ready values; times are RFC 3339, in UTC."""
    return {
        "id": past.id,
        "started": messages.utc(past.started),
        "ended": messages.utc(past.ended),
        "seconds": round(past.seconds, 2),
        "mean_sentiment": past.mean_sentiment,
        "subject": past.hello["subject"],
        "reason": past.reason,
        "checkpoint": past.hello["checkpoint"],
    }


def _answer(make: Callable[..., Page], *asked: object) -> Page:
    """Return what a page function makes of what was asked, the client's rights being the last."""
    try:
        return make(*asked)
    except HistoryError as error:
        return _json(HTTPStatus.NOT_FOUND, {"error": str(error)})


def _json(status: HTTPStatus, value: object) -> Page:
    return Page(status, json.dumps(value) + "\n", "application/json")


def _is_full(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
