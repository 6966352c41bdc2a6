"""Run a source in a thread: report its loss, open it again after a pause.

Knows the life of a source. Knows no device, no model and no message.
"""

import logging
import threading

from ..aio.backoff import Backoff
from ..aio.threads import in_thread
from ..core.sample import Notice
from ..core.source import Now, Put, Source, SourceError, SourceLost

logger = logging.getLogger("tamulag.source")

STOP_LIMIT = 2.0
"""Seconds that a source's thread has to end after `stop` was set."""


async def keep_alive(
    source: Source, *, put: Put, now: Now, stop: threading.Event, threads: list[threading.Thread]
) -> None:
    """Run an open source until it ends by itself or `stop` is set; reopen it whenever it is lost.

    Args:
        source: Already open.
        put: Takes its inputs and the notices of its loss and return.
        now: Session clock.
        stop: Set when the session ends.
        threads: Gets each thread that is started, so that they can be waited for even if this task
            was cancelled.

    Raises:
        Exception: Whatever the source raised that is not a `SourceLost`: a bug is not hidden.
    """
    backoff = Backoff()
    while True:
        backoff.opened()
        try:
            await in_thread(source.name, source.run, put, stop, threads=threads)
        except SourceLost as lost:
            logger.warning("%s: %s", source.name, lost)
            _notify(source, put, now(), lost.reason, str(lost))
        else:
            return
        if not await _reopens(source, backoff, stop, threads):
            return
        logger.info("%s is back", source.name)
        _notify(source, put, now(), None, f"{source.name} is back")


async def _reopens(
    source: Source, backoff: Backoff, stop: threading.Event, threads: list[threading.Thread]
) -> bool:
    """Open a source again, after as many pauses as it needs; return False once `stop` is set."""
    while True:
        if await in_thread(source.name, stop.wait, backoff.next()):
            return False
        try:
            await in_thread(source.name, source.open, threads=threads)
        except SourceError as error:
            logger.info("%s is still away: %s", source.name, error)
        else:
            return True


def _notify(source: Source, put: Put, at: float, reason: str | None, detail: str) -> None:
    for modality in source.modalities:
        put(Notice(at, modality, reason, detail))
