"""Wings as actors of a Ray cluster, or of a Ray of this machine.

Knows Ray. Knows no session. On which node a wing runs, which node is alive and when one is added is
Ray's to say.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .ray_runtime import joined
from .session_worker import Answer, SessionWorker, WorkerCommand, WorkerConfig
from .worker_pool import WorkerLost

CALL_LIMIT = 10.0
"""Seconds for an answer; a wing that takes longer hangs."""

ANSWER_LIMIT = 5.0
"""Seconds for an answer of Ray's head service."""

HIRE_LIMIT = 60.0
"""Seconds until a new wing answers: a processor is found, a process starts, the model is loaded."""

INLINE = {"RAY_max_direct_call_object_size": "8000000"}
"""What is larger goes through a node's shared memory, and a program that reaches for that when its
node's service is gone is ended by Ray. Calls and answers are smaller: see `cluster.CALL`."""

SETTINGS = INLINE | {
    # A driver ends its process when the head service is away for longer than this. The wings still
    # answer, and the sessions are told when they do not.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "1000000",
    # For a Ray that is started here: a wing that is frozen or gone is known after some seconds.
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "500",
    "RAY_health_check_failure_threshold": "4",
}


@contextmanager
def ray_workers(
    address: str | None, plan: WorkerConfig, checkpoint: str, *, most: int
) -> Iterator["RayWorkerFactory"]:
    """Connect to a cluster, or start a Ray of this machine alone, and leave or end it.

    Args:
        address: HOST:PORT of a cluster of which this machine is a node; None: a Ray of our own.
        plan: What each wing is made from.
        checkpoint: What identifies the weights.
        most: Wings at most.

    Raises:
        DataError: If Ray is not installed, or the cluster cannot be reached.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    with joined(address, most) as ray:
        yield RayWorkerFactory(ray, plan, checkpoint)


class RayWorkerFactory:
    """Hires actors, one processor each.

    Args:
        ray: The module, connected.
        plan: What each wing is made from.
        checkpoint: What identifies the weights.
    """

    def __init__(self, ray: Any, plan: WorkerConfig, checkpoint: str) -> None:
        self._ray = ray
        self._made_from = (plan.batch, checkpoint)
        # State that was lost does not come back with the process: a new wing is a new actor.
        self._wing = ray.remote(SessionWorker).options(
            num_cpus=1,
            max_restarts=0,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": INLINE},
        )

    async def hire(self) -> "RayWorker":
        """Return a new wing that answers.

        Raises:
            WingLost: If there is none within `HIRE_LIMIT`.
        """
        wing = RayWorker(self._ray, await _aside(self._actor, ANSWER_LIMIT))
        try:
            await wing.ask((), HIRE_LIMIT)
        except (WorkerLost, asyncio.CancelledError):
            wing.end()
            raise
        return wing

    def _actor(self) -> Any:
        return self._wing.remote(*self._made_from)


async def _aside(work: Callable[[], Any], limit: float) -> Any:
    """Do what may wait for ever in a thread that does not hold up the end of the program.

    Raises:
        WingLost: If it is not done within `limit` seconds, or Ray has an error.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: Exception | None) -> None:
        if found.done():
            return
        if error is None:
            found.set_result(result)
        else:
            found.set_exception(WorkerLost(f"Ray cannot: {error}"))

    def run() -> None:
        result, failed = None, None
        try:
            result = work()
        except Exception as error:
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, result, failed)

    threading.Thread(target=run, name="tamulag.ray", daemon=True).start()
    done, _ = await asyncio.wait([found], timeout=limit)
    if not done:
        found.cancel()
        raise WorkerLost(f"Ray does not answer within {limit:g} s")
    return found.result()


class RayWorker:
    """One actor.

    Args:
        ray: The module.
        actor: A `Wing`.
    """

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray = ray
        self._actor = actor
        self._hangs = False

    async def ask(self, orders: Sequence[WorkerCommand], limit: float = CALL_LIMIT) -> Answer:
        """Return what came of the orders.

        Raises:
            WingLost: If its process or node is gone, or it does not answer within `limit` seconds.
        """
        try:
            call = asyncio.wrap_future(self._actor.do.remote(orders).future())
            # Not `wait_for`, which cancels: Ray answers all the same, some time.
            call.add_done_callback(_seen)
            done, _ = await asyncio.wait([call], timeout=limit)
            if not done:
                self._hangs = True
                raise WorkerLost(f"no answer within {limit:g} s")
            answer: Answer = call.result()
        except self._ray.exceptions.RayTaskError:
            raise
        except self._ray.exceptions.RayError as error:
            raise WorkerLost(str(error).strip().partition("\n")[0]) from None
        return answer

    def end(self) -> None:
        """Let the actor go: Ray ends what nobody can call any more; one that hangs is killed."""
        if self._hangs and self._ray.is_initialized():
            self._ray.kill(self._actor)
        self._actor = None


def _seen(call: asyncio.Future[Answer]) -> None:
    """Look at an answer that came too late: asyncio complains of errors that nobody has seen."""
    if not call.cancelled():
        call.exception()
