"""A frame that breaks a worker costs the sender of that frame, and nobody else."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import pytest

from support.senders import PICTURES_ONLY, picture, sound
from support.waiting import until
from tamulag.models import TamUlag
from tamulag.streamer.cluster import session_worker
from tamulag.streamer.cluster.session_worker import Begin, Move, Pack, SessionWorker, WorkerCommand
from tamulag.streamer.core.commands import Close, Push
from tamulag.streamer.core.sample import Block, Input
from tamulag.streamer.core.session_batch import SessionBatch
from tamulag.streamer.service.feature_workers import process
from tamulag.streamer.service.feature_workers.pipeline import PipelineConfig
from tamulag.streamer.service.feature_workers.pool import FeatureWorkerPool
from tamulag.streamer.service.session_faults import fault_of

from ..core.test_session_batch import ASKED, alone, assert_same, person, small_batch


class Pool:
    """A pool of real processes, and what it reports."""

    def __init__(self, workers: int) -> None:
        self.inputs: dict[str, list[Input]] = {}
        self.notices: list[tuple[str, str | None]] = []
        self.failed: dict[str, Exception] = {}
        self.pool = FeatureWorkerPool(
            workers=workers,
            config=PipelineConfig(asr="none"),
            deliver=lambda name, inputs: self.inputs.setdefault(name, []).extend(inputs),
            notify=lambda name, reason, detail: self.notices.append((name, reason)),
            fail=self._fail,
        )

    def _fail(self, name: str, error: Exception) -> None:
        self.failed[name] = error
        self.pool.end(name)


def run(stage: Pool, play: Callable[[FeatureWorkerPool], Any]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60.0):
            await stage.pool.open()
            running = asyncio.create_task(stage.pool.run())
            try:
                await play(stage.pool)
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                await stage.pool.close()

    asyncio.run(main())


def test_a_frame_that_breaks_its_pipeline() -> None:
    """Its session ends with the traceback of the worker; the other is described on."""
    stage = Pool(1)

    async def play(pool: FeatureWorkerPool) -> None:
        for name in ("a", "b"):
            pool.begin(name, PICTURES_ONLY)
        pool.feed("a", sound(0))
        pool.feed("b", picture(0))
        await until(lambda: bool(stage.failed) and bool(stage.inputs.get("b")))
        assert fault_of(stage.failed["a"]).code == 1011
        assert "pipeline.py" in stage.failed["a"].trace  # type: ignore[attr-defined]
        assert stage.notices == []
        pool.begin("a", PICTURES_ONLY)  # the name is free
        pool.feed("a", picture(1))
        await until(lambda: bool(stage.inputs.get("a")))

    run(stage, play)


def test_a_frame_that_hangs_its_worker(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its sender is closed; the others go on with another worker at once."""
    monkeypatch.setattr(process, "HUNG", 1)
    stage = Pool(2)

    async def play(pool: FeatureWorkerPool) -> None:
        for name in ("a", "x", "b"):  # a and b have one worker, x the other
            pool.begin(name, PICTURES_ONLY)
            pool.feed(name, picture(0))
        await until(lambda: len(stage.inputs) == 3)
        worker = psutil.Process(pool.pids[0])
        worker.suspend()
        try:
            pool.feed("a", picture(1))
            await until(lambda: "a" in stage.failed)
        finally:
            if worker.is_running():
                worker.resume()
        began = time.monotonic()
        pool.feed("b", picture(2))
        await until(lambda: len(stage.inputs["b"]) == 2)
        assert time.monotonic() - began < 2.0
        assert [name for name, _ in stage.notices] == ["b", "b"]
        assert "did not answer" in str(stage.failed["a"])

    with caplog.at_level(logging.CRITICAL):
        run(stage, play)


def test_a_session_that_ends_by_the_loss_of_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the report of the loss cannot be sent: the pool goes on without it."""
    stage = Pool(2)
    monkeypatch.setattr(stage.pool, "_notify", lambda name, *_: stage.pool.end(name))

    async def play(pool: FeatureWorkerPool) -> None:
        pool.begin("a", PICTURES_ONLY)
        pool.feed("a", picture(0))
        await until(lambda: bool(stage.inputs.get("a")))
        psutil.Process(pool.pids[0]).kill()
        await until(lambda: "a" not in pool._sessions)
        pool.begin("a", PICTURES_ONLY)
        pool.feed("a", picture(1))
        await until(lambda: len(stage.inputs["a"]) == 2)

    run(stage, play)


WRONG = Push(Block("audio", 0.0, np.ones((25, 7), np.float32)))
ENDLESS = Push(Block("audio", 0.0, np.full((75, 4), np.inf, np.float32)))


@pytest.mark.parametrize(
    "command", [WRONG, ENDLESS, Pack(), Move()], ids=["command", "step", "snapshot", "move"]
)
def test_a_session_that_breaks_a_session_worker(
    command: Any, model: TamUlag, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reported as one that must not go on; the other has all its scores."""

    def dump(batch: SessionBatch, name: str, checkpoint: str) -> bytes:
        raise OSError(f"{name} cannot be packed")

    monkeypatch.setattr(session_worker, "dump", dump)
    items, worker = person(1), SessionWorker(lambda: small_batch(model), "w")
    given = [WorkerCommand("y", k, Push(item)) for k, item in enumerate(items, 1)]
    begins = [WorkerCommand(name, 0, Begin(ASKED)) for name in "xy"]
    last = [WorkerCommand("y", 999, Close())]
    answers = [worker.do([*begins, WorkerCommand("x", 1, command), *given, *last])]
    while answers[-1].pending:
        answers.append(worker.do([]))
    ((name, trace),) = [end for answer in answers for end in answer.ended]
    assert (name, trace == "") == ("x", command is ENDLESS)
    scores = [one.estimate for answer in answers for one in answer.scores if one.name == "y"]
    assert_same(scores, alone(model, items))
