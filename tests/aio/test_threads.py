"""A blocking function in a thread of its own."""

import asyncio
import threading

from tamulag.streamer.aio.threads import in_thread


def test_in_thread_returns_the_result() -> None:
    """The value of the function comes back to the task."""
    assert asyncio.run(in_thread("sum", sum, [1, 2, 3])) == 6


def test_in_thread_survives_a_cancelled_wait() -> None:
    """A thread that ends after its task was cancelled does no harm."""
    release, ended = threading.Event(), threading.Event()

    def work() -> None:
        release.wait(5)
        ended.set()

    async def cancel() -> None:
        task = asyncio.create_task(in_thread("late", work))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=1)
        release.set()
        await asyncio.to_thread(ended.wait, 5)

    asyncio.run(cancel())
    assert ended.is_set()
