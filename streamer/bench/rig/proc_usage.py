"""What a process uses: processor time and memory. Linux only.

Knows /proc. Knows nothing of what the process does.
"""

import os
from pathlib import Path
from typing import NamedTuple


class Memory(NamedTuple):
    """What lies in memory now, in MB."""

    resident: float
    own: float
    """Of that, what no file on disk holds: without code of libraries and mapped weights."""


def memory(pid: int) -> Memory:
    """Return how much memory a process has."""
    resident, shared = map(int, Path(f"/proc/{pid}/statm").read_text().split()[1:3])
    page = os.sysconf("SC_PAGE_SIZE") / 1e6
    return Memory(resident * page, (resident - shared) * page)


def spent(pid: int) -> float:
    """Return the seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
