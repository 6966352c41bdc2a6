"""Start the two commands from a process that has imported torch already, for tests.

Most of a command's start is the import of what it runs on, four seconds of a core: a server does it
once, and each command is a fork of it, a process with its own pid, signals and exit code. Where a
test is about imports, memory or the environment before Python, it needs `subprocess` instead.

    test -- Command -->  server (this file run as a program)  -- fork -->  the command
"""

import atexit
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import IO, Any, NoReturn, Self

STARTED = 120.0
"""Seconds that the server may take to import everything."""
ENDING = 60.0
"""Seconds that a killed command, or the server, may take to end on a busy machine."""
SIZE = 1 << 20
"""Bytes of the longest request: words and environment."""
MODULES = (
    "torch",
    "cv2",
    "mediapipe",
    "moonshine_voice",
    "tamulag.streamer.app.build_agent",
    "tamulag.streamer.app.build_server",
    "tamulag.streamer.cli.main",
    "tamulag.streamer.features.asr.moonshine",
    "tamulag.streamer.features.vision",
    "tamulag.streamer.publishers.mqtt",
    "tamulag.streamer.storage.history",
    "tamulag.streamer.storage.recorder",
    "tamulag.streamer.webserver.server",
    "tamulag.models.text.text_encoder",
)
"""What commands import, but for onnxruntime: its threads would be missing in a fork."""


class Command:
    """`tamulag` or `tamulag-stream` in a process of its own, with the methods of `Popen`.

    Args:
        words: The command's name, or its path, and its arguments.
        stdout: As of `Popen`; PIPE gives text.
        stderr: Likewise.
        env: All of the environment; None: that of this process.
    """

    def __init__(
        self,
        words: Sequence[object],
        *,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.returncode: int | None = None
        self.stdout, out = _opened(stdout, 1)
        self.stderr, err = _opened(stderr, 2)
        self._status, theirs = socket.socketpair()
        request = [list(map(str, words)), os.getcwd(), dict(os.environ if env is None else env)]
        with theirs, open(os.devnull, "rb") as nothing:
            fds = [nothing.fileno(), out, err, theirs.fileno()]
            socket.send_fds(_server(), [json.dumps(request).encode()], fds)
            self._status.settimeout(STARTED)
            self.pid = int(self._status.recv(32))
        for fd in {out, err} - {1, 2}:
            os.close(fd)

    def wait(self, timeout: float = STARTED) -> int:
        """Return its exit code, negative where a signal ended it, when it has ended.

        Raises:
            subprocess.TimeoutExpired: If it has not by then.
        """
        if self.returncode is None:
            self._status.settimeout(timeout)
            try:
                self.returncode = int(self._status.recv(32))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(str(self.pid), timeout) from None
            self._status.close()
        return self.returncode

    def poll(self) -> int | None:
        """Return its exit code, None while it runs."""
        try:
            return self.wait(0.0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send it SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Kill it, if it still runs, and close its pipes."""
        self.kill()
        self.wait(ENDING)
        for file in (self.stdout, self.stderr):
            if file is not None:
                file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _opened(file: int | IO[Any] | None, own: int) -> tuple[IO[str] | None, int]:
    """Return the end of a pipe that is read here, if it is one, and what the command writes to."""
    if file is None:
        return None, own
    if file == subprocess.PIPE:
        read, write = os.pipe()
        return os.fdopen(read, encoding="utf-8"), write
    if file == subprocess.DEVNULL:
        return None, os.open(os.devnull, os.O_WRONLY)
    return None, os.dup(file if isinstance(file, int) else file.fileno())


_running: list[socket.socket] = []


def _server() -> socket.socket:
    """Return the connection to the server of this process, which is started if there is none."""
    if not _running:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, __file__, str(theirs.fileno())]
            server = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        ours.settimeout(STARTED)
        assert ours.recv(16) == b"ready", "the fork server has not started"
        _running.append(ours)
        atexit.register(_end, ours, server)
    return _running[0]


def _end(connection: socket.socket, server: "subprocess.Popen[bytes]") -> None:
    """Let the server end, which it does when nobody can ask any more."""
    connection.close()
    server.wait(ENDING)


def serve(connection: socket.socket) -> None:
    """Fork a command for each request until the other side closes the connection."""
    for name in MODULES:
        import_module(name)
    running: dict[int, tuple[int, int]] = {}
    """By the file of each command's process: its pid, and where its exit code goes."""
    watched = selectors.DefaultSelector()
    watched.register(connection, selectors.EVENT_READ)
    connection.send(b"ready")
    while True:
        for key, _ in watched.select():
            if key.fd in running:
                watched.unregister(key.fd)
                pid, status = running.pop(key.fd)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                _tell(status, code)
                os.close(status)
                os.close(key.fd)
                continue
            request, fds, _, _ = socket.recv_fds(connection, SIZE, 4)
            if not request:
                return
            pid = os.fork()
            if pid == 0:
                for fd in (connection.fileno(), watched.fileno(), fds[3], *running):
                    os.close(fd)
                _become(fds[:3], *json.loads(request))
            for fd in fds[:3]:
                os.close(fd)
            _tell(fds[3], pid)
            process = os.pidfd_open(pid)
            running[process] = (pid, fds[3])
            watched.register(process, selectors.EVENT_READ)


def _tell(status: int, number: int) -> None:
    """Send a number to who started a command; it may have ended before."""
    try:
        os.write(status, f"{number:32}".encode())
    except BrokenPipeError:
        return


def _become(files: Sequence[int], words: list[str], folder: str, env: dict[str, str]) -> NoReturn:
    """Run a command in this process, a fork."""
    for own, fd in enumerate(files):
        os.dup2(fd, own)
        os.close(fd)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.argv = words
    from tamulag.streamer.cli import main

    name = os.path.basename(words[0])
    sys.exit({"tamulag": main.main, "tamulag-stream": main.stream_main}[name]())


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
