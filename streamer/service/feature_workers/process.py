"""A worker process seen from the server: starts it, sends orders, reads answers, pings, ends it.

Knows the process and the pipe to it. Knows no session; the pool interprets the messages.
"""

import asyncio
import logging
import multiprocessing
import signal
import socket
from collections import deque
from collections.abc import Callable
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from typing import Never

from ...aio.threads import in_thread
from ...core.errors import TamulagError
from .answers import BadAnswer, checked_size, unpack_answer
from .ipc import HEAD, Answer, Order, Ping, Pong, Ready, WorkerFailed, pack
from .pipeline import PipelineConfig
from .worker import serve

logger = logging.getLogger("tamulag.front")

STARTING = 60.0
"""Limit for loading a worker's networks, seconds."""

BEAT = 1.0
"""Interval of pings, seconds."""

HUNG = 10
"""Unanswered pings after which a worker is killed. Pings are counted, not time: workers survive
a pause of the server itself."""

LEAVING = 2.0
"""Limit for a worker's exit, seconds; then it is killed."""


CRASHES = tuple(
    -getattr(signal, name)
    for name in ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV")
    if hasattr(signal, name)
)
"""Exit codes of a process that has crashed by what it did, not by what another has done to it."""


IMPORTED = ("torch", "cv2", "mediapipe", f"{__package__}.worker")
"""What the server of forks imports, once for all workers; none of it has started a thread then."""


class WorkerError(TamulagError):
    """A worker cannot be started; the message names what is missing."""


class WorkerProcess:
    """A worker process that can be started again after its end; used by the event loop alone.

    Args:
        name: For the log.
        config: Settings of its feature pipelines.
    """

    def __init__(self, name: str, config: PipelineConfig) -> None:
        self.name = name
        self._config = config
        self._process: BaseProcess | None = None
        self._loads: deque[float] = deque(maxlen=5)
        self._unanswered = 0
        self.ended_by_work = False
        """Whether it ended by what it did then: it hung, crashed, or gave a bad answer."""

    @property
    def pid(self) -> int | None:
        """Return its process id; None while there is no process."""
        return self._process.pid if self._process else None

    @property
    def load(self) -> float:
        """Return the busy share of the last five seconds, 0..1."""
        return sum(self._loads) / max(len(self._loads), 1)

    async def start(self) -> None:
        """Start it and wait until it is loaded, 60 s at most.

        Raises:
            WorkerError: If that fails; then no process is left.
        """
        self._loads.clear()
        try:
            await self._spawn()
            async with asyncio.timeout(STARTING):
                answer = await self._read()
        except TimeoutError:
            answer = WorkerFailed(f"it was not loaded within {STARTING:g} s")
        except (EOFError, OSError) as error:
            answer = WorkerFailed(
                f"it ended before it was loaded ({error}); see its lines on stderr"
            )
        except BadAnswer as error:
            answer = WorkerFailed(str(error))
        if not isinstance(answer, Ready):
            await self.stop()
            detail = answer.detail if isinstance(answer, WorkerFailed) else "it is not ready"
            raise WorkerError(f"{self.name}: {detail}")

    def send(self, order: Order) -> None:
        """Send an order; never waits, so the caller must bound the orders in flight.

        Orders to a process that has ended are lost; `run` returns then.
        """
        if not self._writer.is_closing():
            self._writer.write(pack(order))

    async def run(self, on_answer: Callable[[Answer], None]) -> str:
        """Read answers until the process ends; return the reason, human-readable.

        A process that does not answer ten pings is killed, and one whose answer is none.

        Args:
            on_answer: Called with each answer; raises `BadAnswer` for one that it cannot give then.
        """
        self._unanswered = 0
        self._beat()
        bad = ""
        try:
            await self._read_all(on_answer)
        except BadAnswer as error:
            bad = str(error)
            self.kill()
        except (EOFError, ConnectionError):
            pass  # it has ended
        finally:
            self._timer.cancel()
        code = await self.stop()
        has_hung = self._unanswered > HUNG
        self.ended_by_work = bool(bad) or has_hung or code in CRASHES
        if bad:
            return f"{self.name} gave an answer that is not taken ({bad}) and was ended"
        if has_hung:
            return f"{self.name} did not answer for {HUNG * BEAT:g} s and was ended"
        return f"{self.name} was ended by signal {-code}" if code < 0 else f"{self.name} failed"

    def kill(self) -> None:
        """Kill it; `run` returns then."""
        if self._process:
            self._process.kill()

    async def stop(self) -> int:
        """Close the pipe, wait for the exit, 2 s at most, else kill; return the exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        self._writer.close()
        await in_thread("front.stop", process.join, LEAVING)
        if process.is_alive():
            process.kill()
            await in_thread("front.stop", process.join, LEAVING)
        return process.exitcode or 0

    async def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        process = _context().Process(
            target=serve, args=(theirs, self._config), name=self.name, daemon=True
        )
        self._reader, self._writer = await asyncio.open_connection(sock=ours)
        try:
            await in_thread("front.start", process.start)
        except BaseException:
            self._writer.close()
            raise
        finally:
            theirs.close()
        self._process = process

    def _beat(self) -> None:
        self._unanswered += 1
        if self._unanswered > HUNG:
            self.kill()
            return
        self.send(Ping())
        self._timer = asyncio.get_running_loop().call_later(BEAT, self._beat)

    async def _read_all(self, on_answer: Callable[[Answer], None]) -> Never:
        while True:
            answer = await self._read()
            if isinstance(answer, Pong):
                self._unanswered = 0
                self._loads.append(answer.load)
            else:
                on_answer(answer)

    async def _read(self) -> Answer:
        size = checked_size(await self._reader.readexactly(HEAD))
        return unpack_answer(await self._reader.readexactly(size))


def _context() -> ForkServerContext | SpawnContext:
    """Return how workers are started.

    Not forks of this process, which would copy the threads' locks of torch and mediapipe, but of
    one that has only imported them: a worker then starts without these imports. It ends when
    this process does, and its workers with it.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():  # Windows has no forks
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    return context
