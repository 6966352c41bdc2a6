"""Feature workers: the same numbers as in one process, no blocking, no loss without a notice."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

import numpy as np
import psutil
import pytest

from support.senders import (
    BOTH,
    PICTURES_ONLY,
    SOUND_ONLY,
    WORDS,
    picture,
    sound,
    speech,
    words,
)
from support.waiting import until
from tamulag.models.text.text_encoder import encoder_for
from tamulag.streamer.core.sample import Array, Input, Phrase, Sample
from tamulag.streamer.protocol.ingest import PlacedFrame
from tamulag.streamer.service.feature_workers import pool as module
from tamulag.streamer.service.feature_workers.pipeline import FeaturePipeline, PipelineConfig
from tamulag.streamer.service.feature_workers.pool import LOST, STEADY, FeatureWorkerPool, PoolFull


class Seen:
    """Records what a pool delivers and notifies."""

    def __init__(self) -> None:
        self.inputs: dict[str, list[Input]] = defaultdict(list)
        self.notices: dict[str, list[str | None]] = defaultdict(list)
        self.details: list[str] = []

    def deliver(self, session: str, inputs: list[Input]) -> None:
        self.inputs[session] += inputs

    def notify(self, session: str, reason: str | None, detail: str) -> None:
        self.notices[session].append(reason)
        self.details.append(detail)

    def samples(self, session: str) -> list[Sample]:
        return [item for item in self.inputs[session] if isinstance(item, Sample)]

    async def pictures(self, session: str, count: int) -> None:
        """Wait until so many pictures are processed."""
        await until(lambda: len(values(self.inputs[session], "vision")) >= count)

    def words(self, session: str) -> str:
        phrases = [item for item in self.inputs[session] if isinstance(item, Phrase)]
        return " ".join(word.text for phrase in phrases for word in phrase.words).lower()


Scenario = Callable[[FeatureWorkerPool, Seen], Awaitable[None]]


def run(
    scenario: Scenario, *, workers: int = 1, asr: bool = False, heavy_sessions: int = 16
) -> None:
    """Let a scenario use a pool of real processes, for a minute at most."""

    async def limited() -> None:
        async with asyncio.timeout(60.0), opened(workers, asr, heavy_sessions) as (pool, seen):
            await scenario(pool, seen)

    asyncio.run(limited())


@asynccontextmanager
async def opened(
    workers: int, asr: bool, heavy_sessions: int
) -> AsyncIterator[tuple[FeatureWorkerPool, Seen]]:
    seen = Seen()
    config = PipelineConfig(asr="auto" if asr else "none")
    pool = FeatureWorkerPool(
        workers=workers,
        config=config,
        deliver=seen.deliver,
        notify=seen.notify,
        heavy_sessions=heavy_sessions,
    )
    await pool.open()
    running = asyncio.create_task(pool.run())
    try:
        yield pool, seen
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await pool.close()
        assert pool.pids == []


def feed(pool: FeatureWorkerPool, session: str, frames: Iterable[PlacedFrame]) -> None:
    for fed in frames:
        pool.feed(session, fed)


def values(inputs: Iterable[Input], modality: str) -> dict[float, Array]:
    return {
        item.timestamp: item.values
        for item in inputs
        if isinstance(item, Sample) and item.modality == modality and item.values is not None
    }


def test_the_numbers_are_those_of_one_process() -> None:
    """Sound and pictures that went through a worker become the same samples, and words."""

    async def scenario(pool: FeatureWorkerPool, seen: Seen) -> None:
        pool.begin("a", BOTH)
        for count in range(40):
            feed(pool, "a", [sound(count), picture(count)])
            await seen.pictures("a", count + 1)
        pool.end("a")
        await until(lambda: "best of times" in seen.words("a"))
        own: list[Input] = []
        pipeline = FeaturePipeline(PipelineConfig(asr="none"), encoder_for("default").encode, BOTH)
        for count in range(40):
            for fed in (sound(count), picture(count)):
                pipeline.push(fed, own.append)
        pipeline.close(own.append)
        for modality, least in (("audio", 100), ("vision", 40)):
            here, there = values(own, modality), values(seen.inputs["a"], modality)
            assert list(there) == list(here)
            assert len(here) >= least
            np.testing.assert_allclose(list(there.values()), list(here.values()), atol=1e-5)

    run(scenario, asr=True)


def test_a_crash_is_reported_and_repaired() -> None:
    """Sessions of a killed worker are lost within 2 s and come back; others are not affected."""

    async def scenario(pool: FeatureWorkerPool, seen: Seen) -> None:
        for name in ("a", "b"):
            pool.begin(name, PICTURES_ONLY)
            feed(pool, name, [picture(0)])
        await until(lambda: all(len(seen.samples(name)) == 1 for name in ("a", "b")))
        other = pool.pids[1]
        psutil.Process(pool.pids[0]).kill()
        async with asyncio.timeout(2.0):
            await until(lambda: seen.notices["a"] == [LOST])
        assert seen.details == ["front end 0 was ended by signal 9"]
        feed(pool, "b", [picture(1)])
        await until(lambda: len(seen.samples("b")) == 2)
        await until(lambda: seen.notices["a"] == [LOST, None])
        feed(pool, "a", [picture(1)])
        await until(lambda: len(seen.samples("a")) == 2)
        assert seen.notices["b"] == []
        await until(lambda: len(pool.pids) == 2)  # the other one took the session
        assert pool.pids[1] == other

    run(scenario, workers=2)


def test_a_stopped_worker_blocks_no_caller() -> None:
    """Frames are accepted at once; those beyond the bounds are dropped and counted."""

    async def scenario(pool: FeatureWorkerPool, seen: Seen) -> None:
        pool.begin("a", BOTH)
        feed(pool, "a", [picture(0)])
        await until(lambda: len(seen.samples("a")) == 1)
        worker = psutil.Process(pool.pids[0])
        worker.suspend()
        try:
            before = time.perf_counter()
            for count in range(1, 41):
                feed(pool, "a", [sound(count), picture(count)])
            assert time.perf_counter() - before < 1.0
            lost = pool.losses("a")["vision"]
            assert 30 <= lost < 40
        finally:
            worker.resume()
        # The last picture was never dropped, so all that is left comes with it.
        await until(lambda: 4.0 in values(seen.inputs["a"], "vision"))
        assert len(values(seen.inputs["a"], "vision")) == 41 - lost
        assert pool.losses("a") == {"vision": lost, "audio": 0, "asr": 0}

    run(scenario)


def test_a_session_s_failure_does_not_affect_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """A frame that breaks a pipeline interrupts its own session only."""

    async def scenario(pool: FeatureWorkerPool, seen: Seen) -> None:
        for name in ("a", "b"):
            pool.begin(name, PICTURES_ONLY)
        feed(pool, "a", [sound(0), picture(0)])
        feed(pool, "b", [picture(0)])
        await until(lambda: seen.notices["a"] == [LOST, None])
        feed(pool, "a", [picture(1)])
        await until(lambda: bool(seen.samples("a")) and bool(seen.samples("b")))
        assert seen.notices["b"] == []
        assert seen.details[0] == "ValueError: audio was not offered in the hello"

    with caplog.at_level(logging.CRITICAL, "tamulag.front"):
        run(scenario)


def test_heavy_sessions_are_limited() -> None:
    """The error names the limit; an ended session makes room. Words alone are not limited."""

    async def scenario(pool: FeatureWorkerPool, seen: Seen) -> None:
        for name in ("a", "b"):
            pool.begin(name, PICTURES_ONLY)
            feed(pool, name, [picture(0)])
        assert not pool.has_room(PICTURES_ONLY)
        with pytest.raises(PoolFull, match="2 workers with 1 sessions each"):
            pool.begin("c", PICTURES_ONLY)
        with pytest.raises(ValueError, match="'a' has begun already"):
            pool.begin("a", PICTURES_ONLY)
        for name in ("d", "e", "f"):
            assert pool.has_room(WORDS)
            pool.begin(name, WORDS)
            feed(pool, name, [words("so well", 1.0)])
        await until(lambda: all(seen.words(name) == "so well" for name in ("d", "e", "f")))
        pool.end("a")
        assert pool.has_room(PICTURES_ONLY)
        pool.begin("c", PICTURES_ONLY)
        feed(pool, "c", [picture(0)])
        await seen.pictures("c", 1)

    run(scenario, workers=2, heavy_sessions=1)


def can_begin(pool: FeatureWorkerPool, name: str) -> bool:
    try:
        pool.begin(name, WORDS)
    except PoolFull:
        return False
    return True


def test_last_words_are_not_those_of_the_next() -> None:
    """A name that is used again gets nothing of the session before."""

    async def scenario(pool: FeatureWorkerPool, seen: Seen) -> None:
        pool.begin("a", SOUND_ONLY)
        for fed in speech(2.0):
            feed(pool, "a", [fed])
            await asyncio.sleep(0.1)
        await until(lambda: len(seen.samples("a")) >= 50)
        pool.end("a")
        pool.begin("a", WORDS)
        before = len(seen.inputs["a"])
        feed(pool, "a", [words("so well", 1.0)])
        await until(lambda: "so well" in seen.words("a"))
        assert len(seen.inputs["a"]) == before + 1

    run(scenario, asr=True)


def test_finish_waits_for_what_was_sent() -> None:
    """All sound sent before the end is processed; then the name is free."""

    async def scenario(pool: FeatureWorkerPool, seen: Seen) -> None:
        pool.begin("a", SOUND_ONLY)
        for fed in speech(2.0):
            feed(pool, "a", [fed])
        await until(lambda: bool(seen.samples("a")))
        await pool.finish("a")
        last = max(sample.timestamp for sample in seen.samples("a"))
        assert last == pytest.approx(1.88)  # the features look 0.1 s ahead
        assert can_begin(pool, "a")

    run(scenario)


def test_the_load_is_that_of_the_busiest() -> None:
    """An idle pool has a low load; without a running worker the load is 1."""

    async def scenario(pool: FeatureWorkerPool, seen: Seen) -> None:
        await until(lambda: 0.0 <= pool.load() < 0.9)
        psutil.Process(pool.pids[0]).kill()
        await until(lambda: pool.load() == 1.0)
        pool.begin("late", PICTURES_ONLY)
        assert seen.notices["late"] == [LOST]
        await until(lambda: seen.notices["late"] == [LOST, None])

    run(scenario)


def test_a_worker_that_does_not_start_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """Its sessions are lost until it starts; the pool continues."""

    async def scenario(pool: FeatureWorkerPool, seen: Seen) -> None:
        pool.begin("a", PICTURES_ONLY)
        feed(pool, "a", [picture(0)])
        await seen.pictures("a", 1)
        pool._slots[0].process._config = PipelineConfig(checkpoint="nowhere")
        psutil.Process(pool.pids[0]).kill()
        await until(lambda: "nowhere" in caplog.text)
        pool._slots[0].process._config = PipelineConfig(asr="none")
        await until(lambda: seen.notices["a"] == [LOST, None])

    with caplog.at_level(logging.WARNING, "tamulag.front"):
        run(scenario)


def test_pauses_grow_and_are_reset() -> None:
    """Twice as long each time, up to four seconds; none after a steady run."""

    async def scenario() -> None:
        now, pauses = asyncio.get_running_loop().time(), [0.0]
        for _ in range(5):
            pauses.append(module._grown(pauses[-1], now))
        assert pauses == [0.0, 0.5, 1.0, 2.0, 4.0, 4.0]
        assert module._grown(4.0, now - STEADY - 1.0) == 0.0

    asyncio.run(scenario())
