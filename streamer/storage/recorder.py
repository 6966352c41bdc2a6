"""Write a recording while a session runs: a bounded queue, a thread, files with limits.

Knows queue, thread and folder. Knows neither the content of rows nor their encoding.
"""

import asyncio
import contextlib
import errno
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ..aio.background_writer import STOP_LIMIT, QueueThread
from ..aio.threads import in_thread
from ..core.commands import SessionCommand
from ..core.estimate import Estimate
from ..publishers.publisher import PublisherError
from .arrow_file import END, SUFFIX, batch_of, schema_of, warm_up
from .recording import Header, Row, estimate_row, rows_of

logger = logging.getLogger("tamulag.recording")

QUEUE = 20_000
"""Rows that may wait for the disk: some five minutes of a live session."""

BATCH = 128
"""Most rows written together; what does not fit on a full disk is lost as a whole."""

FLUSH = 0.5
"""Most seconds until a row has been passed to the system; a kill loses the rest."""

MEGABYTE = 1_000_000

SAME_NAME = 100
"""Most recordings of one session name that start within the same second."""


class Recorder:
    """Records a session's commands and results; an observer and a publisher at once.

    The event loop only appends to a queue. Nothing is dropped from the middle, because a replay of
    such a recording would differ: when the queue or the folder is full, or a write fails, the
    recording ends, `lost` gives the reason, and later rows are counted in `dropped`.

    Args:
        folder: A new folder for this session is created in it; nothing is removed or overwritten.
            Recorders that share it share its limit.
        header: Called once, when the session has started.
        now: Session clock.
        file_limit: Bytes at which the next file starts.
        results_only: Record none of the inputs, for `--privacy strict`.
    """

    name = "recording"

    def __init__(
        self,
        folder: "RecordingFolder",
        header: Callable[[], Header],
        now: Callable[[], float],
        *,
        file_limit: int,
        results_only: bool = False,
    ) -> None:
        self.dropped = 0
        """Rows that arrived after the end of the recording."""
        self.lost: tuple[str, str] | None = None
        """Reason (`full`, `disk_full`, `disk_error`, `too_slow`, `bug`) and a line for people."""
        self._folder = folder
        self._header = header
        self._now = now
        self._file_limit = file_limit
        self._results_only = results_only
        self._writer: QueueThread[Row] | None = None
        self._bug: asyncio.Future[None] | None = None

    async def open(self) -> None:
        """Prepare the folder; see `RecordingFolder`."""
        await self._folder.open()

    def on_command(self, command: SessionCommand) -> None:
        """Record what the session is given."""
        if not self._results_only:
            for row in rows_of(command, self._now()):
                self._add(row)

    def on_estimate(self, estimate: Estimate) -> None:
        """Record an estimate."""
        self._add(estimate_row(estimate, self._now()))

    def publish(self, kind: str, payload: str) -> None:
        """Record a message as it was sent; heartbeats are skipped."""
        if kind != "heartbeat":
            self._add(Row("message", self._now(), text=payload))

    async def run(self) -> None:
        """Wait for an error that is not the disk's: a bug, which is raised."""
        self._bug = asyncio.get_running_loop().create_future()
        await self._bug

    async def close(self) -> None:
        """Write the queue, for `STOP_LIMIT` seconds at most."""
        if self._writer is not None and not await self._writer.end():
            self._end(
                "too_slow", f"{self._folder.path} took more than {STOP_LIMIT} s for the last rows"
            )

    def _add(self, row: Row) -> None:
        if self._writer is None:
            self._writer = self._start()
        if not self._writer.put(row):
            self.dropped += 1
        elif self._writer.waiting > QUEUE:
            self._end("too_slow", f"{self._folder.path} is {QUEUE} rows behind: use a faster disk")

    def _start(self) -> QueueThread[Row]:
        """Start with the first row, when the session clock has started as well."""
        header = self._header()
        name = time.strftime("%Y%m%d-%H%M%S", time.gmtime(header.epoch)) + f"-{header.session}"
        files = _Files(self._folder, name, header, self._file_limit)
        writer = QueueThread(self.name, files.write, files.close, batch=BATCH, interval=FLUSH)
        writer.failed.add_done_callback(self._on_failure)
        return writer

    def _on_failure(self, failed: asyncio.Future[BaseException]) -> None:
        error = failed.result()
        if isinstance(error, _SizeLimit):
            self._end("full", str(error))
        elif isinstance(error, OSError):
            reason = "disk_full" if error.errno in FULL else "disk_error"
            self._end(reason, f"{self._folder.path}: {error.strerror or error}")
        else:
            logger.error("bug in the recorder", exc_info=error)
            self._end("bug", repr(error))
            if self._bug and not self._bug.done():
                self._bug.set_exception(error)

    def _end(self, reason: str, detail: str) -> None:
        assert self._writer is not None
        self.dropped += self._writer.abandon()
        if self.lost is None:
            self.lost = (reason, detail)
            logger.warning("the recording ends before its session: %s", detail)


FULL = frozenset((errno.ENOSPC, errno.EDQUOT))


class _SizeLimit(Exception):
    """The recordings have reached their size limit."""


def _new_folder(path: Path) -> Path:
    """Create a folder; a session of the same name in the same second gets `~2` behind it.

    Raises:
        OSError: If that is not possible, or there are `SAME_NAME` of them.
    """
    for number in range(2, SAME_NAME + 2):
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            path = path.with_name(f"{path.name.partition('~')[0]}~{number}")
        else:
            return path
    raise FileExistsError(errno.EEXIST, f"{SAME_NAME} recordings of this name and second", path)


class RecordingFolder:
    """A folder of recordings and the bytes that they may have together.

    Args:
        path: Of the folder.
        limit: Bytes of all recordings in it.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self._limit = limit
        self._lock = threading.Lock()
        self._used: int | None = None

    async def open(self) -> None:
        """Create the folder, readable for its owner alone, and load what writes to it.

        Raises:
            PublisherError: If that is not possible, or nothing can be written there.
        """
        await in_thread("recording", warm_up)
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(self.path, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, "permission denied")
        except OSError as error:
            raise PublisherError(
                f"cannot record in {self.path} ({error.strerror}): "
                "name a folder that can be written with --record DIR (record.path)"
            ) from error

    def reserve(self, count: int) -> None:
        """Count bytes that are written next; may be called from any thread.

        Raises:
            _SizeLimit: If the recordings, counted once more, would have too many.
        """
        with self._lock:
            if self._used is None or self._used + count > self._limit:
                self._used = sum(f.stat().st_size for f in self.path.glob(f"*/*{SUFFIX}"))
            if self._used + count > self._limit:
                raise _SizeLimit(
                    f"the recordings in {self.path} have {self._used / MEGABYTE:.0f} MB: "
                    "remove old ones, or raise record.total"
                )
            self._used += count


class _Files:
    """The files of one session, each created exclusively and readable for its owner alone."""

    def __init__(self, parent: RecordingFolder, name: str, header: Header, file_limit: int) -> None:
        self._parent = parent
        self._folder = parent.path / name
        self._header = header
        self._file_limit = file_limit
        self._part = 0
        self._size = 0
        self._file: BinaryIO | None = None

    def write(self, rows: list[Row]) -> None:
        """Write rows, if there are any, and flush them to the system."""
        if not rows:
            return
        data = batch_of(rows, schema_of(self._header)).serialize()
        if self._file is None or self._size + data.size > self._file_limit:
            self._next_file()
        self._put(data.to_pybytes())

    def close(self) -> None:
        """End the file; after a failed write its buffer fails once more, which is ignored."""
        file, self._file = self._file, None
        if file is None:
            return
        with contextlib.suppress(OSError):
            file.write(END)
        with contextlib.suppress(OSError):
            file.close()

    def _next_file(self) -> None:
        if self._part == 0:
            self._folder = _new_folder(self._folder)
        self.close()
        path = self._folder / f"{self._part:04}{SUFFIX}"
        # Exclusive: neither an existing file nor the target of a link is overwritten.
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        header = self._header.model_copy(update={"part": self._part})
        self._part, self._size = self._part + 1, 0
        self._put(schema_of(header).serialize().to_pybytes())

    def _put(self, data: bytes) -> None:
        assert self._file is not None
        self._parent.reserve(len(data))
        self._file.write(data)
        self._file.flush()
        self._size += len(data)
