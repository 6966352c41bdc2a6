"""Wings as actors of a Ray cluster, or of a Ray of this machine.

Knows Ray. Knows no session. On which node a wing runs, which node is alive and when one is added is
Ray's to say.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from tamulag.models.data import DataError

from . import fleet
from .staff import WingLost
from .wing import Answer, Order, Plan, Wing

CALL_LIMIT = 10.0
"""Seconds for an answer; a wing that takes longer hangs."""

ANSWER_LIMIT = 5.0
"""Seconds for an answer of Ray's head service."""

JOIN_LIMIT = 60.0
"""Seconds to leave a Ray that is lost and to join it again."""

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
def crew(address: str | None, plan: Plan, checkpoint: str, *, most: int) -> Iterator["RayCrew"]:
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
    with ExitStack() as until:

        def join() -> Any:
            until.close()
            return until.enter_context(fleet.joined(address, most))

        yield RayCrew(join, plan, checkpoint)


class RayCrew:
    """Hires actors, one processor each; joins Ray anew when it was lost with all of them.

    Args:
        join: Leaves Ray, if we are there, joins it and returns its module.
        plan: What each wing is made from.
        checkpoint: What identifies the weights.

    Raises:
        DataError: If it cannot be joined.
    """

    def __init__(self, join: Callable[[], Any], plan: Plan, checkpoint: str) -> None:
        self._join = join
        self._made_from = (plan.hall, checkpoint)
        self._there: set[RayWing] = set()
        self._is_suspect = False
        """Whether a wing could not be had."""
        self._joining = asyncio.Lock()
        self._ray = join()

    async def hire(self) -> "RayWing":
        """Return a new wing that answers.

        Raises:
            WingLost: If there is none within `HIRE_LIMIT`.
        """
        async with self._joining:
            if self._is_suspect and not self._there:
                await self._rejoin()
        wing = None
        try:
            # Both ask the head service, which may be away.
            await _aside(self._ray.nodes, ANSWER_LIMIT)
            wing = RayWing(self._ray, await _aside(self._actor, ANSWER_LIMIT), self._there.discard)
            await wing.ask((), HIRE_LIMIT)
        except (WingLost, asyncio.CancelledError) as error:
            self._is_suspect = isinstance(error, WingLost)
            if wing is not None:
                wing.end()
            raise
        self._is_suspect = False
        self._there.add(wing)
        return wing

    def _actor(self) -> Any:
        # State that was lost does not come back with the process: a new wing is a new actor.
        made = self._ray.remote(Wing).options(
            num_cpus=1,
            max_restarts=0,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": INLINE},
        )
        return made.remote(*self._made_from)

    async def _rejoin(self) -> None:
        try:
            self._ray = await _aside(self._join, JOIN_LIMIT)
        except DataError as error:
            raise WingLost(str(error)) from None
        self._is_suspect = False


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
            found.set_exception(error)

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
        raise WingLost(f"Ray does not answer within {limit:g} s")
    return found.result()


class RayWing:
    """One actor.

    Args:
        ray: The module.
        actor: A `Wing`.
        ended: Is told that it is let go.
    """

    def __init__(self, ray: Any, actor: Any, ended: Callable[["RayWing"], None]) -> None:
        self._ray = ray
        self._actor = actor
        self._ended = ended

    async def ask(self, orders: Sequence[Order], limit: float = CALL_LIMIT) -> Answer:
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
                raise WingLost(f"no answer within {limit:g} s")
            answer: Answer = call.result()
        except self._ray.exceptions.RayTaskError:
            raise
        except self._ray.exceptions.RayError as error:
            raise WingLost(str(error).strip().partition("\n")[0]) from None
        return answer

    def end(self) -> None:
        """End the actor's process; it need not be there any more."""
        self._ended(self)
        if self._ray.is_initialized():
            # Asks the head service, which may be away: not on the event loop.
            threading.Thread(target=self._kill, name="tamulag.ray.kill", daemon=True).start()

    def _kill(self) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError, ValueError):  # it is gone already
            self._ray.kill(self._actor)


def _seen(call: asyncio.Future[Answer]) -> None:
    """Look at an answer that came too late: asyncio complains of errors that nobody has seen."""
    if not call.cancelled():
        call.exception()
