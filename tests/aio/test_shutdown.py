"""A run on the terminal ends in order when it is told to."""

import asyncio
import os
import signal

import pytest

from tamulag.streamer.aio.shutdown import leaves, until_stopped


class Waiting:
    """Something that sends itself a signal and waits to be stopped."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        self._stopped.set()

    async def run(self) -> None:
        os.kill(os.getpid(), self._number)
        async with asyncio.timeout(5):
            await self._stopped.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_in_order(number: int) -> None:
    """The run itself returns; nothing is cut."""

    async def main() -> None:
        await until_stopped(Waiting(number))

    asyncio.run(main())


def test_nested_groups_give_their_errors() -> None:
    """In the order in which they are told."""
    inner = ExceptionGroup("b", [ValueError("2"), ValueError("3")])
    group = ExceptionGroup("a", [ValueError("1"), inner])
    assert [str(error) for error in leaves(group)] == ["1", "2", "3"]
