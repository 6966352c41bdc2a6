"""Waiting in coroutines, always with a limit."""

import asyncio
from collections.abc import Callable, Coroutine


async def until(condition: Callable[[], object], limit: float = 20.0) -> None:
    """Wait until `condition` holds; raises TimeoutError after `limit` seconds."""
    async with asyncio.timeout(limit):
        while not condition():  # noqa: ASYNC110 (bounded)
            await asyncio.sleep(0.01)


def within(seconds: float, scenario: Coroutine[None, None, None]) -> None:
    """Run a scenario to its end; raises TimeoutError after so many seconds."""

    async def main() -> None:
        async with asyncio.timeout(seconds):
            await scenario

    asyncio.run(main())
