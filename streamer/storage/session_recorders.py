"""The recordings of a server: one for each of its sessions.

Knows when a recording starts and ends. Knows no session from inside.
"""

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path

from ..core.sample import Modality
from .recorder import Recorder, RecordingFolder
from .recording import Header

MakeHeader = Callable[[str, tuple[Modality, ...], float], Header]
"""Makes a header of a session's name, modalities and epoch."""


class SessionRecorders:
    """Starts a recorder with each session, and ends it without holding up the others.

    Args:
        folder: A new folder for each session is created in it.
        header: Makes a session's header.
        file_limit: Bytes at which the next file of a session starts.
        total_limit: Bytes of all recordings in `folder` at which recordings end.
        results_only: Record none of the inputs, for `--privacy strict`.
    """

    def __init__(
        self,
        folder: Path,
        header: MakeHeader,
        *,
        file_limit: int,
        total_limit: int,
        results_only: bool = False,
    ) -> None:
        self._folder = RecordingFolder(folder, total_limit)
        self._header = header
        self._file_limit = file_limit
        self._results_only = results_only
        self._running: set[Recorder] = set()
        self._ending: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Prepare the folder; see `RecordingFolder`."""
        await self._folder.open()

    def begin(
        self,
        name: str,
        asked: Collection[Modality],
        epoch: Callable[[], float],
        now: Callable[[], float],
    ) -> Recorder:
        """Return the recorder of a new session; its files are created with its first row.

        Args:
            name: Of the session.
            asked: Its modalities.
            epoch: Returns the wall time of session time 0, seconds since 1970; with the first row.
            now: Session clock.
        """
        recorder = Recorder(
            self._folder,
            lambda: self._header(name, tuple(asked), epoch()),
            now,
            file_limit=self._file_limit,
            results_only=self._results_only,
        )
        self._running.add(recorder)
        return recorder

    def end(self, recorder: Recorder) -> None:
        """Write the last rows of a session in the background."""
        self._running.discard(recorder)
        task = asyncio.create_task(recorder.close(), name="tamulag.recording")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """Write the last rows of all sessions, also of those that were not ended, within 2 s."""
        for recorder in [*self._running]:
            self.end(recorder)
        if self._ending:
            await asyncio.wait(self._ending)
