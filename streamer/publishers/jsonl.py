"""Publish messages as JSON lines: to a file, or to standard output for the next program.

Knows files and pipes. Knows nothing of the content of a line.
"""

import asyncio
import errno
import os
import sys
from functools import partial
from io import FileIO
from pathlib import Path

from ..aio.background_writer import PATIENCE, BackgroundWriter, duplicate, open_with
from ..aio.threads import in_thread
from ..config.secret_file import owner_only
from .publisher import LossCallback, PublisherError, ignore_loss

QUEUE = 1000
"""Lines that may wait for the disk or the reader: some minutes of one live session."""

WAIT_POLL = 0.2
"""Seconds between two checks whether lines wait too long."""


class JsonlPublisher:
    """One message per line, each written at once, by a thread of its own.

    A reader that lets a line wait for more than a second is reported as lost, and as back when it
    has caught up; meanwhile up to `QUEUE` lines wait, then the oldest are dropped and counted. A
    caller that must not lose lines waits for `backlog` (see `wait_for_backlog`), as a file at full
    speed does.

    Args:
        path: A file, which is appended to, or `-` for standard output.
        report: Called with `publisher_lost` and a detail when lines wait too long, and with None
            when they no longer do.
    """

    name = "jsonl"

    def __init__(self, path: str, report: LossCallback = ignore_loss) -> None:
        self._path = path
        self._report = report
        self._is_late = False
        self._dropped = 0
        self._unwritten: list[bytes] = []
        self._writer: BackgroundWriter | None = None

    @property
    def dropped(self) -> int:
        """Lines that were not written."""
        return self._dropped + (self._writer.dropped if self._writer else 0)

    @property
    def backlog(self) -> int:
        """Lines that are not written yet."""
        return self._writer.backlog if self._writer else 0

    async def open(self) -> None:
        """Open the file for appending; a last line torn by a crash is ended first.

        After a loss the line that could not be written comes next, so that success means written.

        Raises:
            PublisherError: If the path cannot be written.
        """
        first, *rest = self._unwritten or [b""]
        try:
            file = await in_thread("jsonl open", partial(_open, self._path, first))
        except OSError as error:
            raise PublisherError(
                f"cannot write {self._path} ({error.strerror or error}): "
                "choose another file with --jsonl PATH (JsonLines), or - for standard output"
            ) from error
        self._writer = BackgroundWriter(self.name, file, size=QUEUE, lines=rest)
        self._unwritten = []

    def publish(self, kind: str, payload: str) -> None:
        """Add one line; after a failed write `run` raises, and lines are dropped and counted."""
        if self._writer is None:
            self._dropped += 1
        else:
            self._writer.put(payload.encode() + b"\n")

    def publish_of(self, session: str, kind: str, payload: str) -> None:
        """Add a line of one of many sessions: the line names its session."""
        self.publish(kind, payload)

    async def run(self) -> None:
        """Watch the writing until it fails.

        Raises:
            BrokenPipeError: If the program that read the lines has ended.
            PublisherError: If the file cannot be written any more, e.g. the disk is full.
        """
        assert self._writer is not None, "open() comes first"
        while not self._writer.failed.done():
            await asyncio.wait([self._writer.failed], timeout=WAIT_POLL)
            self._check_wait(self._writer.waited)
        error = self._writer.failed.result()
        if not isinstance(error, OSError) or isinstance(error, BrokenPipeError):
            raise error
        raise PublisherError(
            f"cannot write {self._path} any more ({error.strerror or error}): "
            "make room, or choose another file with --jsonl PATH (JsonLines)"
        ) from error

    async def close(self) -> None:
        """Write the queue, for two seconds at most; the file closes with the last line."""
        writer, self._writer = self._writer, None
        if writer is not None:
            self._unwritten = await writer.end()
            self._dropped += writer.dropped

    def _check_wait(self, waited: float) -> None:
        if self._is_late == (waited > PATIENCE):
            return
        self._is_late = not self._is_late
        if self._is_late:
            why = f"lines wait for {self._path}: let its reader read, or choose a faster disk"
            self._report("publisher_lost", why)
        else:
            self._report(None, f"{self._path} takes lines again")


def _open(path: str, unwritten: bytes) -> FileIO:
    """Open unbuffered, so that a line that failed is not written later unnoticed."""
    if path == "-":
        # sys.stdout may have been replaced to catch Ray's messages; lines go to the original.
        file = duplicate(sys.__stdout__ or sys.stdout)
    else:
        unwritten = b"\n" * _ends_within_a_line(Path(path)) + unwritten
        file = FileIO(path, "ab", opener=_opened_now)  # words are in it
    return open_with(file, unwritten)


def _opened_now(path: str, flags: int) -> int:
    """Open a file for its owner without waiting: a named pipe without a reader is an error."""
    try:
        descriptor = owner_only(path, flags | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(error.errno, "a pipe that nobody reads: start its reader first") from None
        raise
    os.set_blocking(descriptor, True)
    return descriptor


def _ends_within_a_line(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"
