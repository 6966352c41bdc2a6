"""Let memory that was freed stay with the process, for one that steps many sessions.

Knows glibc. A step of hundreds of sessions takes and frees some tens of megabytes; given back to
the system and allocated again at each step, their pages cost a quarter of the step.
"""

import ctypes
import platform

KEPT = 512 * 2**20
"""Bytes at the heap's end that are not given back."""

LARGEST = 32 * 2**20
"""Bytes of a block from which it is mapped apart and given back at once; glibc takes no more."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def disable_trim() -> bool:
    """Set it for this process; return whether that was possible: with glibc alone."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_THRESHOLD, LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, KEPT))
