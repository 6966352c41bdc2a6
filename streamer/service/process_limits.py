"""Limits of a process that the system keeps: address space.

Knows the system's limits. Where there are none (Windows), nothing is limited.
"""

from pathlib import Path

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]


def limit_growth(more: int) -> None:
    """Let the process take so many bytes of address space beside what it has now.

    What goes beyond is a `MemoryError` of one session, or the end of one worker, in place of a
    machine without memory.
    """
    status = Path("/proc/self/statm")
    if resource is None or not status.exists():
        return
    taken = int(status.read_text().split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    wanted = taken + more
    if most == resource.RLIM_INFINITY or wanted < most:
        resource.setrlimit(resource.RLIMIT_AS, (wanted, most))
