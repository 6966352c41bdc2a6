"""Stop a run by signals or with its parent, and classify its errors.

Knows signals, processes and exception groups. Knows neither devices nor recordings.
"""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import threading
from typing import Protocol


class Stoppable(Protocol):
    """A program that runs until it is over or stopped."""

    def stop(self) -> None:
        """End in order; called from a signal handler of the event loop."""

    async def run(self) -> None:
        """Run to the end."""


async def until_stopped(what: Stoppable) -> None:
    """Run it; SIGINT or SIGTERM stops it in order, a second one ends the process with 130."""
    loop = asyncio.get_running_loop()
    signals = 0

    def end() -> None:
        nonlocal signals
        signals += 1
        what.stop()
        if signals > 1:
            os._exit(130)

    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows has no signal handlers here
            loop.add_signal_handler(number, end)
    await what.run()


def end_with_parent() -> None:
    """Ignore Ctrl-C in a child process of `multiprocessing`, and exit when its parent ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=wait, daemon=True).start()


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """Return the exceptions of a group and of the groups in it."""
    found: list[BaseException] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
