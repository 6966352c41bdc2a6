"""Bounded queues, each written by a thread of its own.

Knows entries and one open file of lines. Knows neither their content nor their reader.
"""

import asyncio
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from io import FileIO
from typing import Generic, TextIO, TypeVar

from .threads import in_thread

logger = logging.getLogger("tamulag.writer")

T = TypeVar("T")

STOP_LIMIT = 1.8
"""Seconds that the last entries have to be written."""

_READY = 500  # milliseconds between two looks at a reader that is not ready

LINES_LIMIT = 1.5
"""Seconds that the last lines have to be written."""

PATIENCE = 1.0
"""Seconds that a line may wait; longer, and its reader does not keep up."""


class QueueThread(Generic[T]):
    """A queue and the thread that writes its entries; used by the event loop's thread.

    The queue grows by `put` alone, so its owner can bound it: `waiting` gives its length.

    Args:
        name: Of the thread.
        write: Called by the thread with the oldest entries; with none, if none came meanwhile.
        close: Called by the thread after the last entry, or after an error.
        batch: Most entries written together; when as many wait they are written at once.
        interval: Seconds until fewer are written; None: never, until the end.
        entries: Those that wait already.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[list[T]], object],
        close: Callable[[], object],
        *,
        batch: int,
        interval: float | None,
        entries: Iterable[T] = (),
    ) -> None:
        loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[BaseException] = loop.create_future()
        """Gets the error of `write` or `close`, after which nothing more is written."""
        self.error: BaseException | None = None
        """The same, at once."""
        self.is_ending = False
        self.writing: list[T] = []
        """Entries that are being written, or that could not be."""
        self._name = name
        self._write = write
        self._close = close
        self._batch = batch
        self._interval = interval
        self._waiting = deque(entries)
        self._changed = threading.Condition()
        self._thread = threading.Thread(
            target=self._work, args=(loop,), name=f"tamulag.{name}", daemon=True
        )
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of entries that wait, without those that are being written."""
        return len(self._waiting)

    @property
    def unwritten(self) -> list[T]:
        """Entries that are not written yet, oldest first."""
        with self._changed:
            return [*self.writing, *self._waiting]

    def put(self, *entries: T) -> bool:
        """Add entries; False if the thread ends or has failed."""
        with self._changed:
            if self.error is not None or self.is_ending:
                return False
            self._waiting.extend(entries)
            if len(self._waiting) >= self._batch:
                self._changed.notify()
            return True

    def drop_oldest(self) -> bool:
        """Remove the oldest entry that waits; False if there is none to be written any more."""
        with self._changed:
            if self.error is not None or not self._waiting:
                return False
            self._waiting.popleft()
            return True

    def abandon(self) -> int:
        """Remove what waits, and what could not be written; end. Return its number."""
        with self._changed:
            self.is_ending = True
            removed = [*self._waiting]
            self._waiting.clear()
            if self.error is not None:
                removed += self.writing
                self.writing = []
            self._changed.notify()
            return len(removed)

    async def end(self, limit: float = STOP_LIMIT) -> bool:
        """Write what waits, for `limit` seconds at most; return whether the thread has ended."""
        with self._changed:
            self.is_ending = True
            self._changed.notify()
        await in_thread(f"{self._name} end", self._thread.join, limit)
        return not self._thread.is_alive()

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            try:
                while (entries := self._next()) is not None:
                    self._write(entries)
            finally:
                self._close()
        except BaseException as error:
            with self._changed:
                self.error = error
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._settle, error)

    def _next(self) -> list[T] | None:
        """Wait for the next entries; None after the last."""
        with self._changed:
            self.writing = []
            self._changed.wait_for(self._is_due, self._interval)
            count = min(self._batch, len(self._waiting))
            self.writing = [self._waiting.popleft() for _ in range(count)]
            return None if self.is_ending and not self.writing else self.writing

    def _is_due(self) -> bool:
        return self.is_ending or len(self._waiting) >= self._batch

    def _settle(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_result(error)


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
        self._name = name
        self._size = size
        self._wrote = 0.0  # when the newest line was
        self._queue = QueueThread(
            name,
            partial(self._write, file),
            file.close,
            batch=1,
            interval=None,
            entries=[(time.monotonic(), line) for line in lines],
        )
        self.failed = self._queue.failed
        """Gets the error that ended the writing: an `OSError`, or a bug."""

    @property
    def backlog(self) -> int:
        """Lines that are not written yet; none after a failure, as nothing is waited for."""
        return len(self._queue.unwritten) if self._queue.error is None else 0

    @property
    def waited(self) -> float:
        """Seconds for which lines have waited and none was written: slow is not standing still."""
        unwritten, now = self._queue.unwritten, time.monotonic()
        return now - max(unwritten[0][0], self._wrote) if unwritten else 0.0

    def put(self, line: bytes) -> None:
        """Add the newest line."""
        if self._queue.waiting == self._size and self._queue.drop_oldest():
            self.dropped += 1
        if not self._queue.put((time.monotonic(), line)):
            self.dropped += 1

    async def end(self) -> list[bytes]:
        """Write what waits, and return what a failure left unwritten.

        Gives up after `LINES_LIMIT` seconds, or at once if nothing could be written for longer than
        `PATIENCE`: then the lines are dropped, and the thread stays behind in its write.
        """
        await self._queue.end(0.0 if self.waited > PATIENCE else LINES_LIMIT)
        rest = [line for _, line in self._queue.unwritten]
        if self._queue.error is not None:
            self._log_failure(self._queue.error, len(rest))
            return rest
        self._queue.abandon()
        self.dropped += len(rest)
        if rest:
            logger.warning("%s: nobody reads, the last %d lines are lost", self._name, len(rest))
        return []

    def _write(self, file: FileIO, lines: list[tuple[float, bytes]]) -> None:
        for _, line in lines:
            write(file, line)
            self._wrote = time.monotonic()

    def _log_failure(self, error: BaseException, lines: int) -> None:
        """Log an `OSError`, unless the reader has left; raise any other error."""
        if not isinstance(error, OSError):
            raise error
        if lines and not isinstance(error, BrokenPipeError):
            logger.warning("%s: %d lines are not written: %s", self._name, lines, error)


def write(file: FileIO, data: bytes) -> None:
    """Write all data; blocks while the reader does not read.

    Raises:
        OSError: If the system refuses.
    """
    while data:
        written = file.write(data)
        if written is None:  # another program has made it non-blocking
            waiting = select.poll()
            waiting.register(file, select.POLLOUT)
            waiting.poll(_READY)
        data = data[written or 0 :]


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
