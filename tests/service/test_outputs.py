"""Publishers live together: opened again when lost, closed together, counted."""

import asyncio

import pytest

from support.recordings import Lines
from tamulag.streamer.publishers.jsonl import JsonlPublisher
from tamulag.streamer.publishers.publisher import PublisherError
from tamulag.streamer.service.outputs import Outputs, keep_publishing


class Output:
    """A publisher that breaks a given number of times, and then is back or stays away."""

    name = "output"
    dropped = 0

    def __init__(self, *script: Exception | None) -> None:
        self._script = list(script)
        self.opened = self.closed = 0
        self.refusals = 0
        self.is_steady = asyncio.Event()

    async def open(self) -> None:
        if self.refusals:
            self.refusals -= 1
            raise PublisherError("output cannot be opened: make room")
        self.opened += 1

    def publish(self, kind: str, payload: str) -> None:
        pass

    async def run(self) -> None:
        error = self._script.pop(0) if self._script else None
        if error is not None:
            raise error
        self.is_steady.set()
        await asyncio.Event().wait()

    async def close(self) -> None:
        self.closed += 1


def notices_of(output: Output) -> list[tuple[str | None, str]]:
    """Run a publisher until it is steady and return the notices."""
    notices: list[tuple[str | None, str]] = []

    async def run() -> None:
        task = asyncio.create_task(keep_publishing(output, lambda *what: notices.append(what)))
        steady = asyncio.create_task(output.is_steady.wait())
        await asyncio.wait([task, steady], timeout=8.0, return_when=asyncio.FIRST_COMPLETED)
        task.cancel()
        steady.cancel()
        done = await asyncio.gather(task, steady, return_exceptions=True)
        if isinstance(done[0], Exception):
            raise done[0]

    asyncio.run(run())
    return notices


def test_a_lost_publisher_is_closed_and_opened_again() -> None:
    """The loss and the recovery are reported once each, however long it stays away."""
    output = Output(PublisherError("disk full"))
    output.refusals = 2
    notices = notices_of(output)
    assert notices == [("publisher_lost", "disk full"), (None, "output is back")]
    assert (output.opened, output.closed) == (1, 1)


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), BrokenPipeError()])
def test_a_publisher_s_bug_and_a_closed_pipe_are_raised(error: Exception) -> None:
    """Only what a `PublisherError` tells is mended."""
    with pytest.raises(type(error)):
        notices_of(Output(error))


def test_messages_of_sessions_go_to_outputs_that_take_them() -> None:
    """Others, such as a terminal, get those of the service alone; drops are counted by name."""
    lines, jsonl = Lines(), JsonlPublisher("unopened")
    outputs = Outputs([lines, jsonl])
    outputs.publish("status", "{}")
    outputs.publish_of("seat-1", "status", "{}")
    assert lines.all == ["{}"]
    assert outputs.gauges() == {"publisher_dropped_lines": 0, "publisher_dropped_jsonl": 2}


def test_all_are_closed_although_one_fails() -> None:
    """The first problem is raised when the others are closed."""

    class Bad(Lines):
        async def close(self) -> None:
            raise ZeroDivisionError("a bug")

    good = Output()
    with pytest.raises(ZeroDivisionError):
        asyncio.run(Outputs([Bad(), good]).close())
    assert good.closed == 1
