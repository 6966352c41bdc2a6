"""A worker that a frame has taken over cannot run code in the server, nor end it."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from support import hostile_workers
from support.senders import PICTURES_ONLY, picture
from support.waiting import until
from tamulag.streamer.offline.file_workers import work_off
from tamulag.streamer.service.feature_workers import process
from tamulag.streamer.service.feature_workers.answers import pack_answer
from tamulag.streamer.service.feature_workers.ipc import Pong
from tamulag.streamer.service.feature_workers.pipeline import PipelineConfig
from tamulag.streamer.service.feature_workers.pool import FeatureWorkerPool
from tamulag.streamer.service.feature_workers.process import WorkerError, WorkerProcess
from tamulag.streamer.service.session_faults import fault_of

LATER = 50
"""Number of the picture that takes a worker over."""


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file that is there if a pickle was read."""
    monkeypatch.setenv(hostile_workers.TRACE, str(tmp_path / "trace"))
    monkeypatch.setattr(process, "serve", hostile_workers.serve)
    return tmp_path / "trace"


@pytest.mark.parametrize("what", hostile_workers.WRITES)
def test_a_worker_that_was_taken_over(
    what: str, trace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is ended with a line that says why; its sender is closed, the other goes on."""
    failed: dict[str, Exception] = {}

    def fail(name: str, error: Exception) -> None:
        failed[name] = error
        pool.end(name)

    back: list[str] = []
    pool = FeatureWorkerPool(
        workers=1,
        config=PipelineConfig(checkpoint=what),
        deliver=lambda *_: None,
        notify=lambda name, reason, _: None if reason else back.append(name),
        fail=fail,
    )

    async def play() -> None:
        for name in ("a", "b"):
            pool.begin(name, PICTURES_ONLY)
        pool.feed("a", picture(LATER))
        await until(lambda: "b" in back and ("a" in failed or "a" in back))
        pool.feed("b", picture(1))
        await pool.finish("b")

    with caplog.at_level(logging.ERROR):
        _run(pool, play)
    if what == "unasked":  # its frame was answered before
        assert sorted(back) == ["a", "b"]
    else:
        assert back == ["b"]
        assert fault_of(failed["a"]).code == 1011
        assert "front end 0 gave an answer that is not taken" in str(failed["a"])
    assert caplog.text.count("front end 0 gave an answer that is not taken") == 1
    assert not trace.exists()


def _run(pool: FeatureWorkerPool, play: Callable[[], object]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60.0):
            await pool.open()
            running = asyncio.create_task(pool.run())
            try:
                await play()  # type: ignore[misc]
                assert not running.done()
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                await pool.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("first", "why"),
    [
        (b"\0\0\0\x04\x80\x04K.", "it is no answer"),
        (b"\xff" * 8, "it announces 4294967295 bytes"),
        (pack_answer(Pong(0.5)), "it is not ready"),
    ],
)
def test_a_worker_that_begins_with_something_else(first: bytes, why: str) -> None:
    """It is not started, and no process is left."""

    async def scenario() -> None:
        child = WorkerProcess("worker", PipelineConfig())

        async def spawn() -> None:
            child._reader = asyncio.StreamReader()
            child._reader.feed_data(first)

        child._spawn = spawn  # type: ignore[method-assign]
        with pytest.raises(WorkerError, match=f"worker: {why}"):
            await child.start()
        assert child.pid is None

    asyncio.run(scenario())


@pytest.mark.parametrize("what", ["pickle", "huge"])
def test_a_film_that_takes_over_an_extracting_worker(what: str, trace: Path) -> None:
    """That film has a problem; the others are played, nothing runs here."""
    jobs = [(name,) for name in ("good", what, "unreadable", "good")]
    found = dict(work_off(hostile_workers.job, jobs, 2))
    assert (found[0], found[2], found[3]) == (None, "unreadable", None)
    assert "gave an answer that is none" in str(found[1])
    assert not trace.exists()
