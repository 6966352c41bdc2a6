"""Bounded queue of lines, written into a file or pipe by a thread of its own.

Knows one open file. Knows neither the lines' content nor their reader.
"""

import asyncio
import errno
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from contextlib import closing
from io import FileIO
from typing import TextIO

from .threads import in_thread

logger = logging.getLogger("tamulag.writer")

STOP_LIMIT = 1.5
"""Seconds that the last lines have to be written."""

PATIENCE = 1.0
"""Seconds that a line may wait; longer, and its reader does not keep up."""


class BackgroundWriter:
    """Write lines in order; the caller that adds one never waits for the reader.

    Bounded: a line that does not fit drops the oldest one that waits, and `dropped` counts it.
    After a failed write nothing is written any more; `end` returns that line and those behind it.

    Args:
        name: Of the thread, and for the log.
        file: Unbuffered; closed when the last line is written or a write has failed.
        size: How many lines may wait, at least 1.
        lines: Those that wait already.
    """

    def __init__(self, name: str, file: FileIO, *, size: int, lines: Iterable[bytes] = ()) -> None:
        self.dropped = 0
        """Lines that were not written: too old, too late, or left when the writer had to end."""
        loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[BaseException] = loop.create_future()
        """Gets the error that ended the writing: an `OSError`, or a bug."""
        self._name = name
        self._size = size
        self._lines = deque((time.monotonic(), line) for line in lines)
        self._changed = threading.Condition()
        self._is_writing = False
        self._wrote = 0.0  # when the newest line was
        self._error: BaseException | None = None
        self._is_ending = False
        self._thread = threading.Thread(
            target=self._work, args=(file, loop), name=f"tamulag.{name}", daemon=True
        )
        self._thread.start()

    @property
    def backlog(self) -> int:
        """Lines that are not written yet; none after a failure, as nothing is waited for."""
        with self._changed:
            return len(self._lines) if self._error is None else 0

    @property
    def waited(self) -> float:
        """Seconds for which lines have waited and none was written: slow is not standing still."""
        with self._changed:
            since = max(self._lines[0][0], self._wrote) if self._lines else time.monotonic()
            return time.monotonic() - since

    def put(self, line: bytes) -> None:
        """Add the newest line."""
        with self._changed:
            if self._error is not None or self._is_ending:
                self.dropped += 1
                return
            if len(self._lines) - self._is_writing == self._size:
                # The first is in the system's hands already.
                del self._lines[int(self._is_writing)]
                self.dropped += 1
            self._lines.append((time.monotonic(), line))
            self._changed.notify()

    async def end(self) -> list[bytes]:
        """Write what waits, and return what a failure left unwritten.

        Gives up after `STOP_LIMIT` seconds, or at once if nothing could be written for longer than
        `PATIENCE`: then the lines are dropped, and the thread stays behind in its write.
        """
        with self._changed:
            self._is_ending = True
            self._changed.notify()
        limit = 0.0 if self.waited > PATIENCE else STOP_LIMIT
        await in_thread(f"{self._name} end", self._thread.join, limit)
        with self._changed:
            rest = [line for _, line in self._lines]
            if self._error is not None:
                self._log_failure(self._error, len(rest))
                return rest
            self.dropped += len(rest)
            while len(self._lines) > self._is_writing:
                self._lines.pop()
        if rest:
            logger.warning("%s: nobody reads, the last %d lines are lost", self._name, len(rest))
        return []

    def _work(self, file: FileIO, loop: asyncio.AbstractEventLoop) -> None:
        try:
            with closing(file):
                while (line := self._next()) is not None:
                    write(file, line)
        except BaseException as error:
            with self._changed:
                self._error = error
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._settle, error)

    def _next(self) -> bytes | None:
        """Remove the written line and wait for the next one; None after the last."""
        with self._changed:
            if self._is_writing:
                self._lines.popleft()
                self._wrote = time.monotonic()
            self._is_writing = False
            self._changed.wait_for(lambda: self._lines or self._is_ending)
            self._is_writing = bool(self._lines)
            return self._lines[0][1] if self._lines else None

    def _log_failure(self, error: BaseException, lines: int) -> None:
        """Log an `OSError`, unless the reader has left; raise any other error."""
        if not isinstance(error, OSError):
            raise error
        if lines and not isinstance(error, BrokenPipeError):
            logger.warning("%s: %d lines are not written: %s", self._name, lines, error)

    def _settle(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_result(error)


def write(file: FileIO, data: bytes) -> None:
    """Write all data; blocks while the reader does not read.

    Raises:
        OSError: If the system refuses, or the file is non-blocking and its reader is not ready.
    """
    while data:
        written = file.write(data)
        if written is None:
            raise BlockingIOError(errno.EAGAIN, "its reader is not ready")
        data = data[written:]


def open_with(file: FileIO, first: bytes) -> FileIO:
    """Return the file when its first bytes are written; close it if they cannot be.

    Raises:
        OSError: As `write`.
    """
    try:
        write(file, first)
    except OSError:
        file.close()
        raise
    return file


def duplicate(out: TextIO) -> FileIO:
    """Return an unbuffered duplicate of a stream's file, to be closed without closing the stream.

    What a thread cannot write stays in no buffer of `out`, so that the interpreter, which empties
    those at its end, neither waits there nor complains of a broken pipe.
    """
    out.flush()
    return FileIO(os.dup(out.fileno()), "wb")
