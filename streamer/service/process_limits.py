"""Limits of a process that the system keeps: files, address space, dumps of its memory.

Knows the system's limits. Where there are none (Windows), nothing is limited.
"""

import sys
from pathlib import Path

if sys.platform != "win32":
    import resource

FILES = 65_536
"""Open files that are enough for every server: two for each connection at most."""


def prepare_process() -> None:
    """Take as many files as the system allows, up to `FILES`, and dump no memory at a crash.

    A dump would hold words, tokens and pictures. Processes that are started later have the same.
    """
    if sys.platform == "win32":
        return
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if most == resource.RLIM_INFINITY else min(FILES, most)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_growth(more: int) -> None:
    """Let the process take so many bytes of address space beside what it has now.

    What goes beyond is a `MemoryError` of one session, or the end of one worker, in place of a
    machine without memory.
    """
    status = Path("/proc/self/statm")
    if sys.platform == "win32" or not status.exists():
        return
    taken = int(status.read_text().split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    wanted = taken + more
    if most == resource.RLIM_INFINITY or wanted < most:
        resource.setrlimit(resource.RLIMIT_AS, (wanted, most))
