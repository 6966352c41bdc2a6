"""What every part of the rig needs: commands and their packages, waiting, ports, a small disk.

Knows processes and /proc. Knows no fault and measures nothing. Linux only.
"""

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...core.errors import TamulagError

DISK = 16
"""MB of the disk that is filled."""

PACKAGES: Mapping[str, str] = {
    "mosquitto": "mosquitto",
    "mosquitto_sub": "mosquitto-clients",
    "ffmpeg": "ffmpeg",
    "pulseaudio": "pulseaudio",
    "pactl": "pulseaudio-utils",
    "paplay": "pulseaudio-utils",
    "node": "nodejs",
}
"""Which Debian package holds a command."""

_LISTEN, _OPEN = "0A", "01"  # states of a TCP socket

BROKER = ("mosquitto", "mosquitto_sub")
CAMERA = ("ffmpeg",)
MICROPHONE = ("pulseaudio", "pactl", "paplay")


class StageError(TamulagError):
    """Something of the rig did not start; the text names it and the remedy."""


def missing(tools: Sequence[str]) -> str | None:
    """Return which command is missing and how to install it, or None."""
    for tool in tools:
        if shutil.which(tool) is None:
            return f"{tool} is missing: apt-get install {PACKAGES.get(tool, tool)}"
    return None


def wait_for(condition: Callable[[], bool], limit: float, what: str) -> None:
    """Wait until `condition` holds; raises StageError after `limit` seconds."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise StageError(f"{what} not within {limit:g} s: try again on a quieter machine")
        time.sleep(0.02)


def free_port() -> int:
    """Return a free TCP port of the loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Return whether a process listens on a TCP port or serves it, without connecting to it."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    rows = (line.split() for line in lines)  # number, local address, remote address, state
    return any(row[1].endswith(f":{port:04X}") and row[3] in (_LISTEN, _OPEN) for row in rows)


def end(process: "subprocess.Popen[Any]") -> None:
    """Kill a process that was started here, by its id."""
    process.kill()
    process.wait(5.0)
    if process.stdout:
        process.stdout.close()


@contextmanager
def small_disk(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Mount a small disk where that is allowed; else give a folder, and False."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", str(folder)]
    with contextlib.suppress(OSError):
        if subprocess.run(command, check=False, capture_output=True, timeout=10).returncode == 0:
            try:
                yield folder, True
            finally:
                subprocess.run(["umount", "-l", str(folder)], check=True, timeout=10)
            return
    yield folder, False
