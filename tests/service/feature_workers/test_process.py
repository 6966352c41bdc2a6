"""A worker process: it starts, is watched, and ends, whoever ends it."""

import asyncio
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable

import psutil
import pytest

from support.senders import PICTURES_ONLY
from support.waiting import until
from tamulag.streamer.bench.rig.processes import wait_for
from tamulag.streamer.service.feature_workers import process as module
from tamulag.streamer.service.feature_workers.ipc import Answer, Begin, Begun
from tamulag.streamer.service.feature_workers.pipeline import PipelineConfig
from tamulag.streamer.service.feature_workers.process import LEAVING, WorkerError, WorkerProcess

FRONT = PipelineConfig(asr="none")


def is_gone(pid: int) -> bool:
    """Return whether a process has ended, whether or not somebody has asked for its exit code."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


async def begun(child: WorkerProcess, heed: Callable[[Answer], None]) -> asyncio.Task[str]:
    """Start a worker and hear it."""
    await child.start()
    return asyncio.create_task(child.run(heed))


def test_a_worker_answers_and_leaves() -> None:
    """Also after a Ctrl-C, which is the server's to heed; then it ends by itself."""

    async def scenario() -> None:
        child, answers = WorkerProcess("worker", FRONT), list[Answer]()
        run = await begun(child, answers.append)
        assert child.pid is not None
        psutil.Process(child.pid).send_signal(signal.SIGINT)
        child.send(Begin(3, PICTURES_ONLY))
        await until(lambda: Begun(3) in answers)
        assert 0.0 <= child.load <= 1.0
        run.cancel()
        async with asyncio.timeout(LEAVING):
            assert await child.stop() == 0
        assert child.pid is None

    asyncio.run(scenario())


def test_a_worker_that_is_killed_is_noticed() -> None:
    """At once, with the signal; and it can be started again."""

    async def scenario() -> None:
        child = WorkerProcess("worker", FRONT)
        for _ in range(2):
            run = await begun(child, lambda _: None)
            assert child.pid is not None
            psutil.Process(child.pid).kill()
            async with asyncio.timeout(2.0):
                assert await run == "worker was ended by signal 9"

    asyncio.run(scenario())


def test_a_worker_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten pings without an answer are the end of patience."""
    monkeypatch.setattr(module, "BEAT", 0.05)

    async def scenario() -> None:
        child = WorkerProcess("worker", FRONT)
        run = await begun(child, lambda _: None)
        assert child.pid is not None
        stopped = psutil.Process(child.pid)
        stopped.suspend()
        async with asyncio.timeout(5.0):
            assert await run == "worker did not answer for 0.5 s and was ended"
        assert not stopped.is_running()

    asyncio.run(scenario())


def test_a_worker_that_cannot_be_loaded_says_why() -> None:
    """The error names what is missing, and no process is left."""

    async def scenario() -> None:
        child = WorkerProcess("worker", PipelineConfig(checkpoint="nowhere"))
        with pytest.raises(WorkerError, match=r"worker: CheckpointError: .*nowhere"):
            await child.start()
        assert child.pid is None

    asyncio.run(scenario())


def test_a_worker_ends_with_its_server() -> None:
    """Also where the server is killed and can say nothing."""
    script = """
        import asyncio, time
        from tamulag.streamer.service.feature_workers.process import WorkerProcess
        from tamulag.streamer.service.feature_workers.pipeline import PipelineConfig

        async def main():
            child = WorkerProcess("worker", PipelineConfig(asr="none"))
            await child.start()
            print(child.pid, flush=True)
            await asyncio.sleep(60)

        if __name__ == "__main__":
            asyncio.run(main())
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdout is not None
        pid = int(server.stdout.readline())
        server.kill()
    wait_for(lambda: is_gone(pid), 2.0, "the worker has ended")
