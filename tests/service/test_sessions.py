"""The sessions of a server without its connections."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from support.recordings import ABOUT
from support.waiting import until
from tamulag.models import TamUlag
from tamulag.models.runtime.torch_engine import TorchEngine
from tamulag.streamer.core.sample import Block, Phrase, Word
from tamulag.streamer.core.session_batch import SessionBatch
from tamulag.streamer.service.backend import LocalBackend
from tamulag.streamer.service.session import ServerSession
from tamulag.streamer.service.session_handover import hand_over
from tamulag.streamer.service.sessions import BACKLOG, SessionRegistry
from tamulag.streamer.service.snapshot_store import StoredSnapshot

from ..core.test_session import TIMING
from ..core.test_session_batch import CARD


class PublishedLines:
    """Records published lines."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def publish_of(self, session: str, kind: str, payload: str) -> None:
        self.lines.append(json.loads(payload))
        assert self.lines[-1]["session"] == session

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["type"] == kind]


def calls(
    model: TamUlag, published: PublishedLines, *, linger: float = 0.2, **rest: Any
) -> SessionRegistry:
    batch = SessionBatch(TorchEngine(model, 4), CARD, TIMING)
    backend = LocalBackend(batch, "w")
    return SessionRegistry(backend, ABOUT, TIMING, published.publish_of, linger=linger, **rest)


def begun(
    some: SessionRegistry, *, by_sender: bool = True, asked: tuple[Any, ...] = ("audio",)
) -> ServerSession:
    call = some.begin(asked, by_sender=by_sender)
    some.attach_sender(call, lambda line: None)
    return call


def voice(hops: float, at: float = 0.0) -> Block:
    return Block("audio", at, np.ones((round(25 * hops), 4), np.float32))


def run(some: SessionRegistry, play: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def both() -> None:
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            running = group.create_task(some.run())
            await play()
            running.cancel()

    asyncio.run(both())


def test_inputs_are_scored_and_published(model: TamUlag) -> None:
    """Published to subscribers and sent to the sender, with the session's own numbers."""
    published = PublishedLines()
    some = calls(model, published)

    async def play() -> None:
        received: list[str] = []
        call = begun(some)
        call.send = received.append
        some.push(call.name, voice(2))
        await until(lambda: len(published.of("sentiment")) == 2)
        assert [json.loads(line)["window"]["end"] for line in received] == [0.5, 1.0]

    run(some, play)
    assert some.scores == 2
    assert max(some.delays) < 5


def test_who_does_not_come_back_is_forgotten(model: TamUlag) -> None:
    """Its session publishes the pending hops and its end; the slot is free again."""
    published = PublishedLines()
    some = calls(model, published)

    async def play() -> None:
        call = begun(some)
        some.push(call.name, voice(1.4))
        some.detach_sender(call, "gone")
        await until(lambda: not some.open)

    run(some, play)
    assert [line["window"]["end"] for line in published.of("sentiment")] == [0.5, 0.7]
    assert published.of("session_end")[0]["reason"] == "stopped"
    assert published.of("status")[-1]["lost"] == {"audio": "microphone_lost"}


def test_who_comes_back_in_time_goes_on(model: TamUlag) -> None:
    """The loss and the recovery are reported; the session continues."""
    published = PublishedLines()
    some = calls(model, published, linger=5.0)

    async def play() -> None:
        call = begun(some)
        some.detach_sender(call, "gone")
        some.attach_sender(call, lambda line: None)
        assert call.name in some.open

    run(some, play)
    assert [line["event"] for line in published.of("event")] == ["source_lost", "source_back"]
    assert published.of("status")[-1]["state"] == "online"


def test_silence_of_all_closes_hops(model: TamUlag) -> None:
    """On the server's clock hops go on without any input."""
    published = PublishedLines()
    some = calls(model, published)

    async def play() -> None:
        begun(some, by_sender=False)
        await until(lambda: bool(published.of("sentiment")))

    run(some, play)
    assert published.of("sentiment")[0]["modalities"]["audio"]["status"] == "missing"


def test_a_sender_that_is_too_fast_waits(model: TamUlag) -> None:
    """More than a few turns that wait close the door until they are done."""
    some = calls(model, PublishedLines())

    async def play() -> None:
        call = begun(some)
        some.push(call.name, voice(BACKLOG + 2))
        assert not call.has_room.is_set()
        await asyncio.wait_for(call.has_room.wait(), 5)

    run(some, play)


def test_a_new_front_end_counts_utterances_anew(model: TamUlag) -> None:
    """Its first phrases do not replace those from before the loss."""
    published = PublishedLines()
    some = calls(model, published)
    spoken = Phrase(0.2, 0, (Word("so", 0.0, 0.2),), np.ones((1, 5), np.float32), (0,), True)

    async def play() -> None:
        call = begun(some, asked=("text", "audio"))
        call.described = call.asked
        some.push(call.name, spoken)
        some.set_workers_lost(call.name, "front_end_lost", "killed")
        some.set_workers_lost(call.name, None, "back")
        some.push(call.name, spoken)

    run(some, play)
    assert [line["utterance"] for line in published.of("text")] == [0, 1]
    assert [line["state"] for line in published.of("status")] == ["degraded"] * 2 + [
        "degraded",
        "online",
    ]


def test_words_stay_inside_where_asked(model: TamUlag) -> None:
    """With strict privacy no text message is published."""
    published = PublishedLines()
    some = calls(model, published, sends_words=False)
    spoken = Phrase(0.2, 0, (Word("so", 0.0, 0.2),), np.ones((1, 5), np.float32), (0,), True)

    async def play() -> None:
        some.push(begun(some, asked=("text",)).name, spoken)

    run(some, play)
    assert not published.of("text")


def test_a_session_goes_on_at_another_server(model: TamUlag) -> None:
    """Name, numbers, time and state are the same; only the gap between the two is missing."""
    published = PublishedLines()
    one, other = calls(model, published), calls(model, published)

    async def first() -> None:
        call = begun(one)
        one.push(call.name, voice(3))
        stored: list[StoredSnapshot] = []

        def keep(snapshot: StoredSnapshot) -> bool:
            stored.append(replace(snapshot, age=0.1))
            return True

        assert [goes_on async for _, goes_on in hand_over(one, keep)] == [True]
        again = other.begin(("audio",), by_sender=True, before=stored[0])
        assert (again.name, again.key, again.reached) == (call.name, call.key, call.reached)
        other.push(again.name, voice(1, at=1.5))

    run(one, first)
    run(other, lambda: until(lambda: other.scores == 1))
    assert [line["window"]["end"] for line in published.of("sentiment")] == [0.5, 1.0, 1.5, 2.0]
    assert [line["seq"] for line in published.lines] == [1, 2, 3, 4, 5]
    assert published.of("session_end")[0]["reason"] == "handed_over"


def test_what_comes_while_all_ends_is_not_taken(model: TamUlag) -> None:
    """A sender that goes on does not hold up the end; pending inputs are scored before."""
    published = PublishedLines()
    some = calls(model, published)

    async def play() -> None:
        call = begun(some)
        some.push(call.name, voice(2))
        async for gone, goes_on in hand_over(some, lambda snapshot: False):
            assert (gone, goes_on) == (call, False)
        some.push(call.name, voice(1, at=1.0))
        other = begun(some)
        some.push(other.name, voice(1))
        assert some.backend.waiting == 0
        assert some.close_all() == [other]

    run(some, play)
    assert some.scores == 2
    assert [line["reason"] for line in published.of("session_end")] == ["stopped"] * 2


def test_ready_features_are_not_the_front_ends_loss(model: TamUlag) -> None:
    """What the sender itself describes goes on counting."""
    published = PublishedLines()
    some = calls(model, published)

    async def play() -> None:
        call = begun(some, asked=("audio", "vision"))
        call.described = ("audio",)
        some.set_workers_lost(call.name, "front_end_lost", "killed")

    run(some, play)
    assert published.of("status")[-1]["lost"] == {"audio": "front_end_lost"}


def test_a_name_is_of_one_session(model: TamUlag) -> None:
    """A sender cannot take the name of another."""
    some = calls(model, PublishedLines())
    call = begun(some)
    with pytest.raises(ValueError, match="is here already"):
        some.begin(("audio",), by_sender=True, name=call.name)


def test_work_is_given_up_in_every_session(model: TamUlag) -> None:
    """Hops double, in sessions that run and in new ones, and halve again; the status has it."""
    published = PublishedLines()
    some = calls(model, published)

    async def play() -> None:
        one = begun(some)
        some.shed(("hop",))
        two = begun(some)
        for call in (one, two):
            some.push(call.name, voice(4))
        await until(lambda: some.scores >= 4)
        some.shed(())
        for call in (one, two):
            some.push(call.name, voice(4, at=2.0))
            some.finish(call, "end")
        await until(lambda: not some.open)

    run(some, play)
    for name in {line["session"] for line in published.lines}:
        lines = [line for line in published.of("sentiment") if line["session"] == name]
        ends = [line["window"]["end"] for line in lines]
        assert ends[:3] == [1.0, 2.0, 2.5]
    assert [line["pressure"] for line in published.of("status")] == [["hop"], [], []]
