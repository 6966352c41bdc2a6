"""A message that repeats is one line with a count, and a slow log delays nothing."""

import io
import logging
import threading
import time

from tamulag.streamer.cli.log_lines import QUEUE, BackgroundHandler, Repeats


def record(message: str, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord("tamulag.x", level, "f.py", 1, message, (), None)


class Minutes:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_thousands_of_equal_warnings_are_a_few_lines() -> None:
    """At once, after a minute, two, four and so on, each with what came in between."""
    clock = Minutes()
    repeats, written = Repeats(clock), []
    for _ in range(24 * 3600 // 4):  # a camera that is lost every four seconds, for a day
        line = record("camera 0 gives no more frames")
        if repeats.filter(line):
            written.append(line.getMessage())
        clock.now += 4
    assert written[0] == "camera 0 gives no more frames"
    assert written[1] == "camera 0 gives no more frames (15 times more in 60 s)"
    assert len(written) < 32
    (rest,) = repeats.rest()
    assert "times more" in rest


def test_other_messages_and_news_are_not_held_back() -> None:
    """Only equal warnings are counted, and of those only the newest few hundred are known."""
    repeats = Repeats(Minutes())
    assert all(repeats.filter(record(f"port {n} refused")) for n in range(2000))
    assert all(repeats.filter(record("connected", logging.INFO)) for _ in range(3))
    assert len(repeats._written) <= 256
    assert repeats.rest() == []


class Slow(io.StringIO):
    """A disk that is not ready until the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = threading.Event()

    def write(self, text: str) -> int:
        self.ready.wait(10)
        return super().write(text)


def test_a_slow_disk_delays_nothing_and_loses_with_a_count() -> None:
    """What does not fit is counted in the last line."""
    disk = Slow()
    handler = BackgroundHandler(disk)
    handler.begin()
    began = time.monotonic()
    for n in range(QUEUE + 50):
        handler.emit(record(f"line {n}"))
    assert time.monotonic() - began < 5.0
    disk.ready.set()
    handler.end()
    lines = disk.getvalue().splitlines()
    assert lines[:2] == ["line 0", "line 1"]
    lost = int(lines[-1].split()[0])
    assert lines[-1] == f"{lost} lines of the log were lost"
    assert lost + len(lines) - 1 == QUEUE + 50


def test_a_log_that_cannot_be_written_ends_nothing() -> None:
    """A closed stream is no error of the program."""
    closed = io.StringIO()
    closed.close()
    handler = BackgroundHandler(closed)
    handler.begin()
    handler.emit(record("x"))
    handler.end()
