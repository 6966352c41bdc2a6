"""Write the log's lines in a thread of their own, and a line that repeats as one with a count.

Knows log records and one stream. Knows no content of a line.
"""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Protocol

QUEUE = 1000
"""Lines that may wait for a slow disk or terminal; further ones are counted."""

_FIRST, _LONGEST = 60.0, 3600.0  # seconds between two lines of one message
_KNOWN = 256  # messages that are remembered
_END = 2.0  # seconds granted to the last lines


class _Written:
    """When a message was last written, and how often it came since."""

    def __init__(self, now: float) -> None:
        self.at = now
        self.pause = _FIRST
        self.count = 0


class Repeats(logging.Filter):
    """Lets a message through once, then with a count after a minute, two, four, up to an hour.

    Args:
        clock: Seconds that never step.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()  # a handler filters before it takes its own
        self._written: dict[tuple[str, str], _Written] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is written now; a count is added to it."""
        if record.levelno < logging.WARNING or record.exc_info:
            return True
        with self._lock:
            return self._passes(record)

    def rest(self) -> list[str]:
        """Return each message that came again since it was written, with its count."""
        now = self._clock()
        with self._lock:
            known = [*self._written.items()]
        return [f"{key[1]}{_times(last, now)}" for key, last in known if last.count]

    def _passes(self, record: logging.LogRecord) -> bool:
        now, key = self._clock(), (record.name, record.getMessage())
        last = self._written.pop(key, None)
        self._written[key] = last or _Written(now)  # the newest is at the end
        if len(self._written) > _KNOWN:
            del self._written[next(iter(self._written))]
        if last is None:
            return True
        last.count += 1
        if now - last.at < last.pause:
            return False
        record.msg, record.args = f"{key[1]}{_times(last, now)}", ()
        last.at, last.pause, last.count = now, min(2 * last.pause, _LONGEST), 0
        return True


def _times(last: _Written, now: float) -> str:
    return f" ({last.count} times more in {now - last.at:.0f} s)"


class Stream(Protocol):
    """What the lines are written to: a file, a terminal, or what stands for one."""

    def write(self, text: str, /) -> object:
        """Take some text."""

    def flush(self) -> None:
        """Pass on what was taken."""


class BackgroundHandler(logging.Handler):
    """Hands formatted lines to a thread that writes them: a slow disk delays no score.

    Args:
        stream: Where they go.
    """

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(QUEUE)
        self._lost = 0
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Start writing."""
        self._thread = threading.Thread(target=self._write, name="tamulag.log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record's line; never waits."""
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._lost += 1
        except Exception:
            self.handleError(record)

    def end(self) -> None:
        """Write what waits, for two seconds at most, and how many lines were lost."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        with contextlib.suppress(queue.Full):
            if self._lost:
                self._lines.put(f"{self._lost} lines of the log were lost", timeout=_END)
            self._lines.put(None, timeout=_END)
        thread.join(_END)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            # A log that cannot be written is no reason to end; there is nowhere left to report it.
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(f"{line}\n")
                self._stream.flush()
