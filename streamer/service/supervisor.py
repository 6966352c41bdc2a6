"""Run a source in a thread: report its loss, open it again after a pause.

Knows the life of a source. Knows no device, no model and no message.
"""

import logging
import threading

from ..aio.backoff import Backoff
from ..aio.threads import in_thread
from ..core.sample import Notice
from ..core.source import FAILED, Now, Put, Source, SourceError, SourceLost

logger = logging.getLogger("tamulag.source")

STOP_LIMIT = 2.0
"""Seconds that a source's thread has to end after `stop` was set."""


async def keep_alive(
    source: Source,
    *,
    put: Put,
    now: Now,
    stop: threading.Event,
    threads: list[threading.Thread],
    away: SourceError | None = None,
) -> SourceLost | None:
    """Run a source until it ends by itself or `stop` is set; reopen it whenever it is lost.

    Args:
        source: Already open, unless it is `away`.
        put: Takes its inputs and the notices of its loss and return.
        now: Session clock.
        stop: Set when the session ends.
        threads: Gets each thread that is started, so that they can be waited for even if this task
            was cancelled.
        away: Why it could not be opened at the start; it is then joined when it comes.

    Returns:
        The permanent fault that ended it, if one did.

    Raises:
        Exception: Whatever the source raised that is not a `SourceLost`: a bug is not hidden.
    """
    backoff = Backoff()
    lost = None if away is None else SourceLost("source_lost", str(away))
    while True:
        if lost is None:
            backoff.opened()
            lost = await _run(source, put, stop, threads)
        if lost is None:
            return None
        _notify(source, put, now(), lost.reason, str(lost))
        if lost.is_permanent:
            return lost
        logger.warning("%s", lost)
        fault = await _reopened(source, backoff, stop, threads)
        if stop.is_set():
            return None
        lost = None if fault is None else SourceLost(FAILED, str(fault))
        if lost is None:
            logger.info("%s is back", source.name)
            _notify(source, put, now(), None, f"{source.name} is back")


async def _run(
    source: Source, put: Put, stop: threading.Event, threads: list[threading.Thread]
) -> SourceLost | None:
    """Run an open source once; return how it was lost, if it was."""
    try:
        await in_thread(source.name, source.run, put, stop, threads=threads)
    except SourceLost as lost:
        return lost
    return None


async def _reopened(
    source: Source, backoff: Backoff, stop: threading.Event, threads: list[threading.Thread]
) -> SourceError | None:
    """Open a source again, after as many pauses as it needs, or until `stop` is set.

    Returns:
        Why it can never be opened again, or None.
    """
    tries = 0
    while not await in_thread(source.name, stop.wait, backoff.next()):
        try:
            await in_thread(source.name, source.open, threads=threads)
        except SourceError as error:
            if error.is_permanent:
                return error
            tries += 1
            logger.info("%s is still away, %d times tried: %s", source.name, tries, error)
        else:
            return None
    return None


def _notify(source: Source, put: Put, at: float, reason: str | None, detail: str) -> None:
    for modality in source.modalities:
        put(Notice(at, modality, reason, detail))
