"""What is slow to make is made once a test session, for all files and all processes.

Knows pytest's folders. Does not know what is made.
"""

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

LIMIT = 240.0
"""Seconds that a process waits for another one to make something."""


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that `make` has filled, in this process or in another one.

    Raises:
        TimeoutError: If the other process makes it for longer than `LIMIT`.
    """
    base = factory.getbasetemp()
    # Of xdist's processes each has a folder of its own below that of the session.
    session = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = session / f"shared-{name}", session / f"shared-{name}.done"
    with (session / f"shared-{name}.lock").open("w") as lock:
        _acquire(lock.fileno(), name)
        if not done.exists():
            folder.mkdir(exist_ok=True)  # `make` may have failed before
            make(folder)
            done.touch()
    return folder


def _acquire(file: int, name: str) -> None:
    limit = time.monotonic() + LIMIT
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > limit:
                raise TimeoutError(f"the other process makes {name} for {LIMIT:g} s") from None
            time.sleep(0.05)
        else:
            return
