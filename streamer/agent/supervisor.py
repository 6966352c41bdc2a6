"""One source or publisher, kept alive: reports its loss, opens it again after a pause.

Knows the life of both; a source runs in a thread. Knows no device, no model and no message.
"""

import asyncio
import logging
import random
import threading
from collections.abc import Callable

from ..aio.backoff import FIRST_PAUSE, LONGEST_PAUSE
from ..aio.threads import in_thread
from ..core.sample import Notice
from ..core.source import Now, Put, Source, SourceError, SourceLost
from ..publishers.publisher import Publisher, PublisherError

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
        stop: Set by whoever ends the session.
        threads: Gets each thread that is started, so that they can be waited for even if this task
            was cancelled.

    Raises:
        Exception: Whatever the source raised that is not a `SourceLost`: a bug is not hidden.
    """
    pause = FIRST_PAUSE
    opened = now()
    while True:
        try:
            await in_thread(source.name, source.run, put, stop, threads=threads)
        except SourceLost as lost:
            logger.warning("%s: %s", source.name, lost)
            _tell(source, put, now(), lost.reason, str(lost))
        else:
            return
        if now() - opened > LONGEST_PAUSE:
            pause = FIRST_PAUSE
        while not stop.is_set():
            await in_thread(source.name, stop.wait, random.uniform(pause / 2, pause))
            pause = min(LONGEST_PAUSE, 2 * pause)
            if stop.is_set():
                return
            try:
                await in_thread(source.name, source.open, threads=threads)
            except SourceError as error:
                logger.info("%s is still away: %s", source.name, error)
                continue
            opened = now()
            logger.info("%s is back", source.name)
            _tell(source, put, opened, None, f"{source.name} is back")
            break
        if stop.is_set():
            return


async def keep_publishing(publisher: Publisher, tell: Callable[[str | None, str], None]) -> None:
    """Run an open publisher until cancelled; whenever it is lost, close it and open it again.

    Args:
        publisher: Already open.
        tell: Told `publisher_lost` and why, and None when it is back; called on the event loop.

    Raises:
        Exception: Whatever the publisher raised that is not a `PublisherError`.
    """
    loop = asyncio.get_running_loop()
    pause = FIRST_PAUSE
    while True:
        opened = loop.time()
        try:
            await publisher.run()
        except PublisherError as lost:
            logger.warning("%s: %s", publisher.name, lost)
            tell("publisher_lost", str(lost))
        await publisher.close()
        if loop.time() - opened > LONGEST_PAUSE:
            pause = FIRST_PAUSE
        is_open = False
        while not is_open:
            await asyncio.sleep(random.uniform(pause / 2, pause))
            pause = min(LONGEST_PAUSE, 2 * pause)
            is_open = await _opens(publisher)
        tell(None, f"{publisher.name} is back")


async def _opens(publisher: Publisher) -> bool:
    try:
        await publisher.open()
    except PublisherError as error:
        logger.info("%s is still away: %s", publisher.name, error)
        return False
    return True


def _tell(source: Source, put: Put, at: float, reason: str | None, detail: str) -> None:
    for modality in source.modalities:
        put(Notice(at, modality, reason, detail))
