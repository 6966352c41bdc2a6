"""Publish messages as JSON lines: to a file, or to standard output for the next program.

Knows files and pipes. Knows nothing of what the lines say.
"""

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import BinaryIO

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
    dropped = 0

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._error: OSError | None = None
        self._broken = asyncio.Event()

    async def open(self) -> None:
        """Open the file for appending; a last line that was torn by a crash is ended first.

        Raises:
            PublisherError: If the path cannot be written.
        """
        try:
            self._file = _open(self._path)
        except OSError as error:
            raise PublisherError(
                f"cannot write {self._path} ({error.strerror or error}): "
                "choose another file with --jsonl PATH, or - for standard output"
            ) from error

    def publish(self, kind: str, payload: str) -> None:
        """Write one line; after a failed write nothing more is written and `run` raises."""
        if self._file is None or self._error is not None:
            return
        try:
            self._file.write(payload.encode() + b"\n")
            self._file.flush()
        except OSError as error:
            self._error = error
            self._broken.set()

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
        if file is None:
            return
        # After a failed write the buffer still holds that line, and closing fails on it once more.
        with contextlib.suppress(OSError) if self._error else contextlib.nullcontext():
            file.close()


def _open(path: str) -> BinaryIO:
    if path == "-":
        sys.stdout.flush()
        # A duplicate can be closed, and a broken pipe leaves nothing behind in sys.stdout that
        # would make the interpreter complain at its end.
        return open(os.dup(sys.stdout.fileno()), "wb")
    torn = _ends_within_a_line(Path(path))
    file = Path(path).open("ab")  # noqa: SIM115 (lives until `close`)
    if torn:
        file.write(b"\n")
    return file


def _ends_within_a_line(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"
