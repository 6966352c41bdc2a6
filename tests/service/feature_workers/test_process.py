"""A worker process: starts, is supervised, and ends with its server."""

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
from tamulag.streamer.service.feature_workers.ipc import Answer, OpenSession, SessionOpened
from tamulag.streamer.service.feature_workers.pipeline import PipelineConfig
from tamulag.streamer.service.feature_workers.process import LEAVING, WorkerError, WorkerProcess

CONFIG = PipelineConfig(asr="none")


def is_gone(pid: int) -> bool:
    """Return whether a process has ended, waited for or not."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


async def running(child: WorkerProcess, on_message: Callable[[Answer], None]) -> asyncio.Task[str]:
    """Start a worker and read its answers."""
    await child.start()
    return asyncio.create_task(child.run(on_message))


def test_a_worker_answers_and_leaves() -> None:
    """A Ctrl-C does not end it, only the server does; then it exits by itself."""

    async def scenario() -> None:
        child, answers = WorkerProcess("worker", CONFIG), list[Answer]()
        run = await running(child, answers.append)
        assert child.pid is not None
        psutil.Process(child.pid).send_signal(signal.SIGINT)
        child.send(OpenSession(3, PICTURES_ONLY))
        await until(lambda: SessionOpened(3) in answers)
        assert 0.0 <= child.load <= 1.0
        run.cancel()
        async with asyncio.timeout(LEAVING):
            assert await child.stop() == 0
        assert child.pid is None

    asyncio.run(scenario())


def test_a_worker_that_is_killed_is_noticed() -> None:
    """At once, with the signal's number; and it can be started again."""

    async def scenario() -> None:
        child = WorkerProcess("worker", CONFIG)
        for _ in range(2):
            run = await running(child, lambda _: None)
            assert child.pid is not None
            psutil.Process(child.pid).kill()
            async with asyncio.timeout(2.0):
                assert await run == "worker was ended by signal 9"

    asyncio.run(scenario())


def test_a_worker_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """After ten pings without an answer."""
    monkeypatch.setattr(module, "BEAT", 0.05)

    async def scenario() -> None:
        child = WorkerProcess("worker", CONFIG)
        run = await running(child, lambda _: None)
        assert child.pid is not None
        stopped = psutil.Process(child.pid)
        stopped.suspend()
        async with asyncio.timeout(5.0):
            assert await run == "worker did not answer for 0.5 s and was ended"
        assert not stopped.is_running()

    asyncio.run(scenario())


def test_a_worker_that_cannot_be_loaded_reports_the_cause() -> None:
    """The error names what is missing, and no process is left."""

    async def scenario() -> None:
        child = WorkerProcess("worker", PipelineConfig(checkpoint="nowhere"))
        with pytest.raises(WorkerError, match=r"worker: CheckpointError: .*nowhere"):
            await child.start()
        assert child.pid is None

    asyncio.run(scenario())


def test_a_worker_ends_with_its_server() -> None:
    """Also when the server is killed and sends nothing."""
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
