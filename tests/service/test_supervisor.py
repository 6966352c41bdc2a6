"""A source is supervised: lost, reported, reopened; a bug is not hidden."""

import asyncio
import threading
import time
from collections.abc import Collection

import pytest

from tamulag.streamer.core.sample import Input, Modality, Notice
from tamulag.streamer.core.source import FAILED, Put, SourceError, SourceLost
from tamulag.streamer.service.supervisor import keep_alive


class Scripted:
    """A source that does one thing after another: lose, fail to open, end, or raise."""

    name = "scripted"
    modalities: tuple[Modality, ...] = ("text", "audio")

    def __init__(self, *script: str) -> None:
        self.script = list(script)
        self.fault: SourceLost | None = None

    def losses(self) -> dict[str, int]:
        return {}

    def gauges(self) -> dict[str, float]:
        return {}

    def shed(self, steps: Collection[str]) -> None:
        pass

    def open(self) -> None:
        if self.script and self.script[0] in ("refuse", "forbid"):
            is_permanent = self.script.pop(0) == "forbid"
            raise SourceError("scripted cannot be opened: plug it in", is_permanent=is_permanent)

    def run(self, put: Put, stop: threading.Event) -> None:
        step = self.script.pop(0) if self.script else "end"
        if step == "lose":
            raise SourceLost("microphone_lost", "scripted: no block for 2 s")
        if step == "fail":
            raise SourceLost(FAILED, "scripted holds nothing")
        if step == "bug":
            raise ZeroDivisionError("a bug")
        if step == "wait":
            stop.wait(5)


def supervise(
    source: Scripted, stop: threading.Event | None = None, away: SourceError | None = None
) -> list[Input]:
    found: list[Input] = []
    source.fault = asyncio.run(
        keep_alive(
            source,
            put=found.append,
            now=time.monotonic,
            stop=stop or threading.Event(),
            threads=[],
            away=away,
        )
    )
    return found


def reasons(found: list[Input]) -> list[str | None]:
    return [n.reason for n in found if isinstance(n, Notice) and n.modality == "audio"]


def test_a_lost_source_is_reported_and_reopened() -> None:
    """Each of its modalities gets a notice of the loss and one of the return."""
    notices = supervise(Scripted("lose", "refuse", "end"))
    reported = [(n.modality, n.reason) for n in notices if isinstance(n, Notice)]
    assert reported == [
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


@pytest.mark.parametrize("script", [("fail", "bug"), ("lose", "refuse", "forbid", "bug")])
def test_a_permanent_fault_ends_a_source(script: tuple[str, ...]) -> None:
    """It is reported with its reason and returned; nothing is opened again."""
    source = Scripted(*script)
    assert reasons(supervise(source))[-1] == FAILED
    assert source.script == ["bug"]
    assert source.fault is not None
    assert source.fault.is_permanent


def test_a_source_that_is_away_at_the_start_is_joined() -> None:
    """It is reported as lost, then opened until it comes."""
    source = Scripted("refuse", "end")
    found = supervise(source, away=SourceError("scripted is not there"))
    assert reasons(found) == ["source_lost", None]
    assert source.fault is None
