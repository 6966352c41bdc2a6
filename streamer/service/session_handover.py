"""Hand the sessions of a server over: each is stored, and ended so that another server resumes it.

Knows the registry and a function that stores. Knows no file and no connection.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable

from .session import ServerSession
from .sessions import POLL, SessionRegistry
from .snapshot_store import StoredSnapshot

Save = Callable[[StoredSnapshot], bool]
"""Stores a session; returns whether another server will find it."""


async def hand_over(
    registry: SessionRegistry, save: Save
) -> AsyncGenerator[tuple[ServerSession, bool], None]:
    """End one session after the other so that another server can resume it.

    Input is ignored from now on; pending steps are published before. The caller sets a limit,
    and ends with `close_all` those that are left.

    Args:
        registry: Has the sessions.
        save: Stores a session; where it returns True the end is `handed_over`.

    Yields:
        Each session once it has ended, and whether it was stored.
    """
    registry.is_draining = True
    registry.backend.drain()
    while registry.open:
        packed = await registry.backend.pack([*registry.open])
        for session in [registry.open[name] for name in packed if name in registry.open]:
            is_stored = _store(registry, session, packed[session.name], save)
            if session.name in registry.open:
                reason = "handed_over" if is_stored else session.closing or "stopped"
                registry.remove(session, reason)
            yield session, is_stored
        await asyncio.sleep(0 if packed else POLL)


def _store(
    registry: SessionRegistry, session: ServerSession, state: bytes | Exception, save: Save
) -> bool:
    stored = []
    with registry.guard(session):
        if isinstance(state, Exception):
            raise state
        stored.append(session.closing is None and save(session.snapshot(state)))
    return stored == [True]
