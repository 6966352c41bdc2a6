"""Publish messages as JSON lines: to a file, or to standard output for the next program.

Knows files and pipes. Knows nothing of what the lines say.
"""

import asyncio
import errno
import os
import sys
from io import FileIO
from pathlib import Path

from .publisher import PublisherError


class JsonlPublisher:
    """One message per line, each written out at once.

    Writes directly in `publish`, on the event loop: a line costs microseconds on a disk, and
    whoever asks for lines wants all of them, in order. So nothing is dropped, and a reader of the
    pipe that stops reading makes the agent wait.

    Args:
        path: A file, which is appended to, or `-` for standard output.
    """

    name = "jsonl"

    def __init__(self, path: str) -> None:
        self.dropped = 0
        self._path = path
        self._unwritten = b""
        self._file: FileIO | None = None
        self._error: OSError | None = None
        self._broken = asyncio.Event()

    async def open(self) -> None:
        """Open the file for appending; a last line that was torn by a crash is ended first.

        After a loss the line that could not be written comes next, so that "open" means written.

        Raises:
            PublisherError: If the path cannot be written.
        """
        self._error = None
        self._broken.clear()
        try:
            self._file = _open(self._path, self._unwritten)
            self._unwritten = b""
        except OSError as error:
            raise PublisherError(
                f"cannot write {self._path} ({error.strerror or error}): "
                "choose another file with --jsonl PATH, or - for standard output"
            ) from error

    def publish(self, kind: str, payload: str) -> None:
        """Write one line; after a failed write `run` raises, and lines are dropped and counted."""
        if self._file is None or self._error is not None:
            self.dropped += 1
            return
        line = payload.encode() + b"\n"
        try:
            _write(self._file, line)
        except OSError as error:
            self._error, self._unwritten = error, line
            self._broken.set()

    def publish_of(self, session: str, kind: str, payload: str) -> None:
        """Write a line of one of many sessions: each names its own."""
        self.publish(kind, payload)

    async def run(self) -> None:
        """Wait until a write fails.

        Raises:
            BrokenPipeError: If the program that read the lines has ended.
            PublisherError: If the file cannot be written any more, e.g. the disk is full.
        """
        await self._broken.wait()
        assert self._error is not None
        if isinstance(self._error, BrokenPipeError):
            raise self._error
        raise PublisherError(
            f"cannot write {self._path} any more ({self._error.strerror or self._error}): "
            "make room, or choose another file with --jsonl PATH"
        ) from self._error

    async def close(self) -> None:
        """Close the file; every line that could be written has been."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


def _open(path: str, unwritten: bytes) -> FileIO:
    """Open unbuffered, so that a line that failed is not written later behind our back."""
    if path == "-":
        # Ray's messages are kept out of the standard output by another sys.stdout; ours are not.
        out = sys.__stdout__ or sys.stdout
        out.flush()
        # A duplicate can be closed, and a broken pipe leaves nothing behind in it that would make
        # the interpreter complain at its end.
        file = FileIO(os.dup(out.fileno()), "wb")
    else:
        unwritten = b"\n" * _ends_within_a_line(Path(path)) + unwritten
        file = FileIO(path, "ab")
    try:
        _write(file, unwritten)
    except OSError:
        file.close()
        raise
    return file


def _write(file: FileIO, line: bytes) -> None:
    while line:
        written = file.write(line)
        if written is None:
            raise BlockingIOError(errno.EAGAIN, "its reader is not ready")
        line = line[written:]


def _ends_within_a_line(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"
