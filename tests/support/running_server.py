"""A real server of many sessions in a process of its own, for tests."""

import contextlib
import re
import signal
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from .fork_server import Command
from .paths import BIN

STARTING = 60.0
ENDING = 15.0


def _new_process(words: Sequence[str], *, stdout: int) -> "subprocess.Popen[str]":
    return subprocess.Popen([BIN / words[0], *words[1:]], stdout=stdout, text=True)


class Serving:
    """`tamulag serve` on a free port, from `with` to its end.

    Args:
        options: Of the command.
        workers: Processes for sound and pictures.
        forks: False: it imports everything anew, and has the environment of this process.
    """

    def __init__(self, *options: str, workers: int = 0, forks: bool = True) -> None:
        self._options: Sequence[str] = options
        self._workers = workers
        self._start = Command if forks else _new_process
        self.url = ""

    def __enter__(self) -> Self:
        command = ["tamulag", "serve", "--websocket", "127.0.0.1:0"]
        self._process = self._start(
            [*command, "--workers", str(self._workers), *self._options], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found = re.search(r"(ws://\S+/)ingest", line)
        assert found, line
        self.url = found[1]
        return self

    @property
    def pid(self) -> int:
        """Of the server."""
        return self._process.pid

    def stop(self, limit: float = ENDING) -> int:
        """End it in order, within so many seconds, and return its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(limit)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(ENDING)
        self._process.kill()
        self._process.wait(ENDING)
        assert self._process.stdout is not None
        self._process.stdout.close()
