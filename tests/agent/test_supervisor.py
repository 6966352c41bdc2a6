"""A source is kept alive: lost, reported, reopened; a bug is not hidden."""

import asyncio
import threading
import time
from collections.abc import Collection

import pytest

from tamulag.streamer.agent.supervisor import keep_alive, keep_publishing
from tamulag.streamer.aio.threads import in_thread
from tamulag.streamer.core.sample import Input, Modality, Notice
from tamulag.streamer.core.source import Put, SourceError, SourceLost
from tamulag.streamer.publishers.publisher import PublisherError


class Scripted:
    """A source that does one thing after another: lose, fail to open, end, or raise."""

    name = "scripted"
    modalities: tuple[Modality, ...] = ("text", "audio")

    def __init__(self, *script: str) -> None:
        self.script = list(script)

    def losses(self) -> dict[str, int]:
        return {}

    def gauges(self) -> dict[str, float]:
        return {}

    def shed(self, steps: Collection[str]) -> None:
        pass

    def open(self) -> None:
        if self.script and self.script[0] == "refuse":
            self.script.pop(0)
            raise SourceError("scripted cannot be opened: plug it in")

    def run(self, put: Put, stop: threading.Event) -> None:
        step = self.script.pop(0) if self.script else "end"
        if step == "lose":
            raise SourceLost("microphone_lost", "scripted: no block for 2 s")
        if step == "bug":
            raise ZeroDivisionError("a bug")
        if step == "wait":
            stop.wait(5)


def supervise(source: Scripted, stop: threading.Event | None = None) -> list[Input]:
    found: list[Input] = []
    asyncio.run(
        keep_alive(
            source, put=found.append, now=time.monotonic, stop=stop or threading.Event(), threads=[]
        )
    )
    return found


def test_a_lost_source_is_reported_and_reopened() -> None:
    """Each of its modalities gets a notice of the loss and one of the return."""
    notices = supervise(Scripted("lose", "refuse", "end"))
    told = [(n.modality, n.reason) for n in notices if isinstance(n, Notice)]
    assert told == [
        ("text", "microphone_lost"),
        ("audio", "microphone_lost"),
        ("text", None),
        ("audio", None),
    ]


def test_a_source_that_ends_is_not_reopened() -> None:
    """The end of a file is no loss."""
    source = Scripted("end", "bug")
    assert supervise(source) == []
    assert source.script == ["bug"]


def test_a_bug_is_raised() -> None:
    """Only a loss is mended."""
    with pytest.raises(ZeroDivisionError):
        supervise(Scripted("bug"))


def test_stop_ends_the_wait_for_a_lost_source() -> None:
    """A camera that stays away does not keep the process."""
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    supervise(Scripted("lose", *["refuse"] * 50), stop)


def test_in_thread_returns_the_result() -> None:
    """The value of the function comes back to the task."""
    assert asyncio.run(in_thread("sum", sum, [1, 2, 3])) == 6


def test_in_thread_survives_a_cancelled_wait() -> None:
    """A thread that ends after its task was cancelled does no harm."""
    release, ended = threading.Event(), threading.Event()

    def work() -> None:
        release.wait(5)
        ended.set()

    async def cancel() -> None:
        task = asyncio.create_task(in_thread("late", work))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=1)
        release.set()
        await asyncio.to_thread(ended.wait, 5)

    asyncio.run(cancel())
    assert ended.is_set()


class Output:
    """A publisher that breaks as often as it is told, and then is back or stays away."""

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


def kept(output: Output) -> list[tuple[str | None, str]]:
    """Keep a publisher alive until it is steady and return what was told."""
    told: list[tuple[str | None, str]] = []

    async def run() -> None:
        task = asyncio.create_task(keep_publishing(output, lambda *what: told.append(what)))
        steady = asyncio.create_task(output.is_steady.wait())
        await asyncio.wait([task, steady], timeout=8.0, return_when=asyncio.FIRST_COMPLETED)
        task.cancel()
        steady.cancel()
        done = await asyncio.gather(task, steady, return_exceptions=True)
        if isinstance(done[0], Exception):
            raise done[0]

    asyncio.run(run())
    return told


def test_a_lost_publisher_is_closed_and_opened_again() -> None:
    """It is told once that it is lost and once that it is back, however long it stays away."""
    output = Output(PublisherError("disk full"))
    output.refusals = 2
    told = kept(output)
    assert told == [("publisher_lost", "disk full"), (None, "output is back")]
    assert (output.opened, output.closed) == (1, 1)


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), BrokenPipeError()])
def test_a_publisher_s_bug_and_a_closed_pipe_are_raised(error: Exception) -> None:
    """Only what a `PublisherError` tells is mended."""
    with pytest.raises(type(error)):
        kept(Output(error))
