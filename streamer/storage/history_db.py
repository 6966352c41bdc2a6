"""The file of past sessions: one SQLite database that several processes write and read at once.

Knows tables and limits, and how the file stays whole when a writer is killed. Knows no thread and
no queue; of a message it reads the few fields that a list of sessions shows.
"""

import itertools
import json
import os
import sqlite3
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from ..core.errors import TamulagError
from .history_erasure import finish, shrink

VERSION = 1
"""Version of the tables; a newer file is refused."""

APPLICATION = 0x54414D55
"""Marks the file as ours, so that another program's database is never written to."""

BUSY_TIMEOUT = 5.0
"""Seconds that a writer waits for another one."""

KILLED_AFTER = 60.0
"""Seconds without a message after which an unfinished session counts as killed."""

TABLES = (
    """CREATE TABLE sessions (key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,
    started REAL NOT NULL, ended REAL NOT NULL, seconds REAL NOT NULL DEFAULT 0,
    scores INTEGER NOT NULL DEFAULT 0, total REAL NOT NULL DEFAULT 0, reason TEXT,
    hello TEXT NOT NULL)""",
    """CREATE TABLE messages (key INTEGER PRIMARY KEY,
    session INTEGER NOT NULL REFERENCES sessions (key) ON DELETE CASCADE,
    seq INTEGER NOT NULL, kind TEXT NOT NULL, line TEXT NOT NULL)""",
    "CREATE UNIQUE INDEX in_order ON messages (session, seq)",
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {VERSION}",
)

_FIELDS = "id, started, ended, seconds, scores, total, reason, hello"


class HistoryError(TamulagError):
    """The history cannot be used; the text names the file and the remedy."""


class HistoryFull(HistoryError):
    """The running sessions alone exceed the size limit of the file."""


@dataclass(frozen=True, kw_only=True)
class PastSession:
    """A session of the history, ended or running; wall times are seconds since 1970."""

    id: str
    started: float
    ended: float
    """Wall time of its newest message."""
    seconds: float
    """Length in stream time."""
    mean_sentiment: float | None
    """Mean of all scores that are not null."""
    reason: str | None
    """Reason of its end; None: it is running, or was killed."""
    hello: dict[str, Any]
    """The session's `hello` message."""


def default_path() -> Path:
    """Return the file of the history where the settings name none."""
    if sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Application Support"
    else:
        root = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return root / "tamulag" / "history.sqlite"


class HistoryDb:
    """The open history; for one thread at a time, and many processes at once.

    Removed data is overwritten with zeros, so that no word stays in the file.

    Args:
        path: The file.
        create: Create it, readable for its owner alone, if it does not exist.

    Raises:
        HistoryError: If it does not exist, cannot be opened, or is of another program or a newer
            version.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self._path = path
        if create:
            _make(path)
        elif not path.is_file():
            raise HistoryError(
                f"no history at {path}: keep one with `tamulag-stream --history`, "
                "or name its file with --history FILE"
            )
        self._db: sqlite3.Connection | None = None
        with self._as_history_error("opened"):
            address = f"{path.absolute().as_uri()}?mode=rw"
            self._db = sqlite3.connect(
                address,
                uri=True,
                timeout=BUSY_TIMEOUT,
                isolation_level=None,
                check_same_thread=False,
            )
            self._prepare(self._db)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; may be called twice."""
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error):  # On a full disk everything possible has been written.
                db.close()

    def begin(self, hello: str) -> int:
        """Add the session of a `hello` line and return its key.

        One that was handed over continues; a name that was used before gets a number behind it.

        Raises:
            sqlite3.Error: If it cannot be written.
        """
        opening = json.loads(hello)
        start, name = _wall(opening["epoch"]), opening["session"]
        with self._writing() as db:
            for number in itertools.count(2):
                found = db.execute("SELECT key FROM sessions WHERE id = ?", (name,)).fetchone()
                if found is None:
                    break
                query = "SELECT coalesce(max(seq), 0) + 1 FROM messages WHERE session = ?"
                if db.execute(query, found).fetchone() == (opening["seq"],):
                    db.execute("UPDATE sessions SET reason = NULL WHERE key = ?", found)
                    return int(found[0])
                name = f"{opening['session']}-{number}"
            query = "INSERT INTO sessions (id, started, ended, hello) VALUES (?, ?, ?, ?)"
            return int(db.execute(query, (name, start, start, hello)).lastrowid or 0)

    def append(self, key: int, lines: Sequence[str]) -> None:
        """Add messages of a session, all or none of them.

        Raises:
            HistoryError: If the session was removed from the history.
            sqlite3.Error: If they cannot be written, e.g. the disk is full.
        """
        messages = [json.loads(line) for line in lines]
        scores = [m["sentiment"] for m in messages if m.get("sentiment") is not None]
        reasons = [m["reason"] for m in messages if m["type"] == "session_end"]
        found = {
            "key": key,
            "ended": max(_wall(m["time"]) for m in messages),
            "seconds": max(_session_time(m) for m in messages),
            "scores": len(scores),
            "total": sum(scores),
            "reason": reasons[-1] if reasons else None,
        }
        rows = [(key, m["seq"], m["type"], line) for m, line in zip(messages, lines, strict=True)]
        with self._writing() as db:
            changed = db.execute(
                "UPDATE sessions SET ended = max(ended, :ended), seconds = max(seconds, :seconds),"
                " scores = scores + :scores, total = total + :total,"
                " reason = coalesce(:reason, reason) WHERE key = :key",
                found,
            )
            if changed.rowcount == 0:
                raise HistoryError(f"the running session was removed from {self._path}")
            db.executemany(
                "INSERT INTO messages (session, seq, kind, line) VALUES (?, ?, ?, ?)", rows
            )

    def sessions(self, limit: int = -1) -> list[PastSession]:
        """Return the sessions, newest first; at most `limit`, -1: all."""
        with self._as_history_error("read"):
            query = f"SELECT {_FIELDS} FROM sessions ORDER BY started DESC, key DESC LIMIT ?"
            return [_past_session(row) for row in self._open.execute(query, (limit,))]

    def session(self, name: str) -> PastSession:
        """Return one session.

        Raises:
            HistoryError: If there is none of that name.
        """
        with self._as_history_error("read"):
            query = f"SELECT {_FIELDS} FROM sessions WHERE id = ?"
            row = self._open.execute(query, (name,)).fetchone()
        if row is None:
            raise HistoryError(f"no session {name!r} in {self._path}: see `tamulag sessions list`")
        return _past_session(row)

    def messages(self, name: str, *, after: int = 0, limit: int = -1) -> Iterator[str]:
        """Yield the lines of a session in the order of sending.

        Args:
            name: Identifier of the session.
            after: Only messages with a larger `seq`.
            limit: Most messages; -1: all.
        """
        with self._as_history_error("read"):
            query = (
                "SELECT line FROM messages JOIN sessions ON messages.session = sessions.key"
                " WHERE id = ? AND seq > ? ORDER BY seq LIMIT ?"
            )
            for (line,) in self._open.execute(query, (name, after, limit)):
                yield line

    def delete(self, *names: str) -> bool:
        """Remove sessions permanently, all of them or none.

        Returns:
            Whether their words are gone from the disk; else another program reads an older state of
            the file, and the next one that opens it after that overwrites them.

        Raises:
            HistoryError: If there is none of a name, or the file cannot be written.
        """
        for name in names:
            self.session(name)
        with self._as_history_error("changed"):
            with self._writing() as db:
                db.executemany("DELETE FROM sessions WHERE id = ?", [(name,) for name in names])
            return shrink(self._open)

    def prune(
        self, running: Collection[int], *, now: float, max_age: float, max_bytes: int
    ) -> tuple[int, int]:
        """Remove the oldest sessions beyond the limits; never a running one.

        Args:
            running: Keys of the own sessions.
            now: Wall time, seconds since 1970.
            max_age: Seconds since a session's end.
            max_bytes: Size of the file without its free pages.

        Returns:
            Number of sessions that were too old, and number of those removed for space.

        Raises:
            HistoryFull: If the running sessions alone are larger than `max_bytes`.
            sqlite3.Error: If nothing can be written.
        """
        if self.size <= max_bytes and not self._is_any_older(now - max_age):
            return 0, 0
        old = room = 0
        with self._writing() as db:
            query = (
                "SELECT key, ended FROM sessions"
                " WHERE reason IS NOT NULL OR ended < ? ORDER BY ended"
            )
            for other, ended in db.execute(query, (now - KILLED_AFTER,)).fetchall():
                if other in running:
                    continue
                is_old = ended < now - max_age
                if not is_old and self.size <= max_bytes:
                    break
                db.execute("DELETE FROM sessions WHERE key = ?", (other,))
                old, room = old + is_old, room + (not is_old)
        shrink(self._open)
        if self.size > max_bytes:
            raise HistoryFull(
                f"{self._path} has {self.size / 1e6:.0f} MB and nothing left to remove but "
                "sessions that run: raise history.max_size"
            )
        return old, room

    @property
    def size(self) -> int:
        """Bytes in use; the write-ahead log may hold some MB more."""
        pages, free, each = (
            self._open.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * each)

    @property
    def _open(self) -> sqlite3.Connection:
        assert self._db is not None, "the store is closed"
        return self._db

    def _is_any_older(self, end: float) -> bool:
        oldest = self._open.execute("SELECT min(ended) FROM sessions").fetchone()[0]
        return oldest is not None and oldest < end

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        db = self._open
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # A full disk has rolled back already.
                db.execute("ROLLBACK")
            raise

    @contextmanager
    def _as_history_error(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise HistoryError(
                f"{self._path} cannot be {what} ({error}): name another file in history.path"
            ) from error

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Check the owner of the file, and create the tables of a new one."""
        try:
            is_new = self._check(db)
            if is_new:
                db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            db.execute("PRAGMA journal_mode = WAL")
            for pragma in ("foreign_keys = ON", "secure_delete = ON", "synchronous = NORMAL"):
                db.execute(f"PRAGMA {pragma}")
            db.execute("PRAGMA journal_size_limit = 4000000")
            if is_new:
                with self._writing():
                    # Another process may have created them meanwhile.
                    for statement in TABLES if self._check(db) else ():
                        db.execute(statement)
            finish(db, BUSY_TIMEOUT)
        except BaseException:
            self.close()
            raise

    def _check(self, db: sqlite3.Connection) -> bool:
        """Return whether the file is empty; refuse another program's or version's.

        Raises:
            HistoryError: If it is not ours, or of another version.
        """
        whose = db.execute("PRAGMA application_id").fetchone()[0]
        version = db.execute("PRAGMA user_version").fetchone()[0]
        tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if whose == 0 and version == 0 and tables == 0:
            return True
        if whose != APPLICATION:
            raise HistoryError(f"{self._path} is of another program: name a file in history.path")
        if version != VERSION:
            raise HistoryError(
                f"{self._path} has tables of version {version}, this program knows {VERSION}: "
                "use the program that wrote it, or name a new file in history.path"
            )
        return False


def _make(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives the files beside it the same permissions.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise HistoryError(
            f"{path} cannot be written ({error.strerror}): name another file in history.path"
        ) from error


def _past_session(row: Sequence[Any]) -> PastSession:
    name, started, ended, seconds, scores, total, reason, hello = row
    return PastSession(
        id=name,
        started=started,
        ended=ended,
        seconds=seconds,
        mean_sentiment=round(total / scores, 4) if scores else None,
        reason=reason,
        hello=json.loads(hello),
    )


def _wall(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def _session_time(message: dict[str, Any]) -> float:
    end = message["window"]["end"] if "window" in message else message.get("at", 0.0)
    return float(end)
