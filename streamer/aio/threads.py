"""Call a blocking function in a thread of its own and await it."""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread(
    name: str,
    function: Callable[..., T],
    *arguments: object,
    threads: list[threading.Thread] | None = None,
) -> T:
    """Call a blocking function in a thread of its own and wait for it.

    Unlike the event loop's executor, a thread that hangs in a driver cannot keep the process from
    ending: it is a daemon.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        try:
            outcome: tuple[T | None, BaseException | None] = (function(*arguments), None)
        except BaseException as error:
            outcome = (None, error)
        # A thread that outlived the session by more than STOP_LIMIT finds the loop closed.
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, *outcome)

    thread = threading.Thread(target=work, name=f"tamulag.{name}", daemon=True)
    if threads is not None:
        threads[:] = [*(old for old in threads if old.is_alive()), thread]
    thread.start()
    return await done
