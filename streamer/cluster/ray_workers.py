"""Session workers as actors of a Ray cluster, or of a local Ray.

Knows Ray. Knows no session. The node of a worker, node failures and new nodes are Ray's decisions.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..aio.threads import in_thread
from .ray_runtime import connect
from .session_worker import Answer, SessionWorker, WorkerCommand, WorkerConfig
from .worker_pool import WorkerLost

CALL_LIMIT = 10.0
"""Seconds for an answer; a slower worker counts as hanging."""

ANSWER_LIMIT = 5.0
"""Seconds for an answer of Ray's head service."""

START_LIMIT = 60.0
"""Seconds until a new worker answers: a processor is found, a process starts, the model loads."""

INLINE = {"RAY_max_direct_call_object_size": "8000000"}
"""Larger values go through a node's shared memory, and Ray ends a program that reads it once the
node's service has gone. Calls and answers are smaller: see `backend.CALL_SIZE`."""

SETTINGS = INLINE | {
    # A driver ends its process when the head service is away for longer than this. The workers
    # still answer, and sessions are reported as lost when they do not.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "1000000",
    # For a local Ray: a frozen or dead worker is detected after some seconds.
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "500",
    "RAY_health_check_failure_threshold": "4",
}


@contextmanager
def ray_workers(
    address: str | None, plan: WorkerConfig, checkpoint: str, *, most: int
) -> Iterator["RayWorkerFactory"]:
    """Connect to a cluster, or start a local Ray; disconnect or stop it afterwards.

    Args:
        address: HOST:PORT of a cluster of which this machine is a node; None: a local Ray.
        plan: Configuration of each worker.
        checkpoint: Identifies the weights.
        most: Most workers.

    Raises:
        DataError: If Ray is not installed, or the cluster cannot be reached.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    # The workers of a local Ray have our environment; one of their own would cost the start of a
    # second process for each, as Ray starts the first without it.
    own = {} if address is None else INLINE
    with connect(address, most) as ray:
        yield RayWorkerFactory(ray, plan, checkpoint, own)


class RayWorkerFactory:
    """Starts actors, one processor each.

    Args:
        ray: The module, connected.
        plan: Configuration of each worker.
        checkpoint: Identifies the weights.
        environment: Of the actors, beside that of their node.
    """

    def __init__(
        self, ray: Any, plan: WorkerConfig, checkpoint: str, environment: Mapping[str, str]
    ) -> None:
        self._ray = ray
        self._made_from = (plan.batch, checkpoint)
        # Lost state does not return with a restarted process: a new worker is a new actor.
        self._actor_class = ray.remote(SessionWorker).options(
            num_cpus=1,
            max_restarts=0,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": dict(environment)} if environment else None,
        )

    async def start(self) -> "RayWorker":
        """Return a new worker that answers.

        Raises:
            WorkerLost: If none answers within `START_LIMIT`.
        """
        worker = RayWorker(self._ray, await _in_thread_within(self._actor, ANSWER_LIMIT))
        try:
            await worker.ask((), START_LIMIT)
        except (WorkerLost, asyncio.CancelledError):
            worker.end()
            raise
        return worker

    def _actor(self) -> Any:
        return self._actor_class.remote(*self._made_from)


async def _in_thread_within(work: Callable[[], Any], limit: float) -> Any:
    """Run a call that may block for ever in a thread that does not block the program's end.

    Raises:
        WorkerLost: If it takes more than `limit` seconds, or Ray has an error.
    """
    try:
        async with asyncio.timeout(limit):
            return await in_thread("ray", work)
    except TimeoutError:
        raise WorkerLost(f"Ray does not answer within {limit:g} s") from None
    except Exception as error:
        raise WorkerLost(f"Ray cannot: {error}") from error


class RayWorker:
    """One actor.

    Args:
        ray: The module.
        actor: A `SessionWorker`.
    """

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray = ray
        self._actor = actor
        self._hangs = False

    async def ask(self, orders: Sequence[WorkerCommand], limit: float = CALL_LIMIT) -> Answer:
        """Execute commands and return their results.

        Raises:
            WorkerLost: If its process or node is gone, or no answer comes within `limit` seconds.
        """
        try:
            call = asyncio.wrap_future(self._actor.do.remote(orders).future())
            # Not `wait_for`, which cancels: Ray answers later all the same.
            call.add_done_callback(_retrieve)
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
        """Release the actor: Ray ends it when no handle is left; one that hangs is killed."""
        if self._hangs and self._ray.is_initialized():
            self._ray.kill(self._actor)
        self._actor = None


def _retrieve(call: asyncio.Future[Answer]) -> None:
    """Retrieve the result of a late answer: asyncio complains about unretrieved errors."""
    if not call.cancelled():
        call.exception()
