"""Where faults are tried: an agent of its own, a broker, a camera, a microphone, on the loopback.

Knows the commands that make them and ends what it started. Knows no fault and measures nothing.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from ...core.errors import TamulagError
from .probe import MessageProbe

STARTING = 120.0
"""Seconds that an agent may take to load its models and to open its devices, however busy it is."""

DISK = 16
"""MB of the disk that is filled."""

PACKAGES: Mapping[str, str] = {
    "mosquitto": "mosquitto",
    "mosquitto_sub": "mosquitto-clients",
    "ffmpeg": "ffmpeg",
    "pulseaudio": "pulseaudio",
    "pactl": "pulseaudio-utils",
    "paplay": "pulseaudio-utils",
}
"""Which Debian package holds a command."""

BROKER = ("mosquitto", "mosquitto_sub")
CAMERA = ("ffmpeg",)
MICROPHONE = ("pulseaudio", "pactl", "paplay")


class StageError(TamulagError):
    """Something of the stage did not start; the text names it and the remedy."""


def missing(tools: Sequence[str]) -> str | None:
    """Return which command is missing and how to install it, or None."""
    for tool in tools:
        if shutil.which(tool) is None:
            return f"{tool} is missing: apt-get install {PACKAGES[tool]}"
    return None


def wait_for(condition: Callable[[], bool], limit: float, what: str) -> None:
    """Wait until `condition` holds; raises StageError after `limit` seconds."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise StageError(f"{what} not within {limit:g} s: try again on a quieter machine")
        time.sleep(0.02)


def free_port() -> int:
    """Return a TCP port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a process that was started here, by its id."""
    process.kill()
    process.wait(5.0)
    if process.stdout:
        process.stdout.close()


class Broker:
    """A mosquitto whose port stays the same over restarts."""

    def __init__(self) -> None:
        self.port = free_port()
        self.start()

    def start(self) -> None:
        """Start and wait until it listens."""
        command = ["mosquitto", "-p", str(self.port)]
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(command, stdout=quiet, stderr=quiet)
        wait_for(lambda: _listens(self.port), 10.0, "mosquitto listens")

    @contextmanager
    def witness(self) -> Iterator[MessageProbe]:
        """Subscribe to everything while the block runs."""
        command = ["mosquitto_sub", "-p", str(self.port), "-t", "tamulag/v1/#", "-q", "1", "-v"]
        quiet = subprocess.DEVNULL
        ear = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=quiet)
        try:
            witness = MessageProbe("mqtt", _payloads(ear))
            yield witness
        finally:
            ear.kill()
            witness.join(5.0)
            end(ear)

    def retained(self) -> str:
        """Return the retained status, or an empty text if there is none within 3 s."""
        topic = ["-t", "tamulag/v1/+/+/status", "-C", "1", "-W", "3"]
        command = ["mosquitto_sub", "-p", str(self.port), *topic]
        return _output(command)


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, check=False, capture_output=True, timeout=10, text=True)
    return done.stdout


def _payloads(ear: "subprocess.Popen[bytes]") -> Iterator[str]:
    assert ear.stdout is not None
    for line in ear.stdout:
        yield line.decode().split(" ", 1)[1]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def broker() -> Iterator[Broker]:
    """Run a broker while the block runs."""
    made = Broker()
    try:
        yield made
    finally:
        end(made.process)


class Camera:
    """A network camera that shows one picture; it serves one viewer."""

    def __init__(self, picture: Path) -> None:
        self._picture = picture
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}/cam.mjpg"
        self.start()

    def start(self) -> None:
        """Plug it in; it listens soon."""
        show = ["-re", "-loop", "1", "-framerate", "15", "-i", str(self._picture)]
        form = ["-vf", "scale=320:-2", "-pix_fmt", "yuvj420p", "-c:v", "mjpeg", "-q:v", "4"]
        command = ["ffmpeg", "-loglevel", "quiet", *show, *form, "-f", "mpjpeg", "-listen", "1"]
        self._process = subprocess.Popen([*command, self.url], stdin=subprocess.DEVNULL)

    def unplug(self) -> None:
        """Let it vanish."""
        end(self._process)


@contextmanager
def camera(picture: Path) -> Iterator[Camera]:
    """Have a camera while the block runs."""
    made = Camera(picture)
    try:
        yield made
    finally:
        made.unplug()


class Microphone:
    """A private sound server in `folder` with one microphone that hears a voice all the time."""

    def __init__(self, folder: Path, voice: Path) -> None:
        self._voice = voice
        path = folder / "pulse" / "native"
        path.parent.mkdir()
        default = "pcm.!default { type pulse }\nctl.!default { type pulse }\n"
        (folder / ".asoundrc").write_text(default)
        names = ("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME")
        own = {k: v for k, v in os.environ.items() if not k.startswith("PULSE_")}
        server = {"PULSE_SERVER": f"unix:{path}"}
        self.environment = own | dict.fromkeys(names, str(folder)) | server
        command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1"]
        quiet = ["--log-target=null", "-L", f"module-native-protocol-unix socket={path}"]
        self._server = subprocess.Popen([*command, *quiet], env=self.environment)
        self._speaker: subprocess.Popen[bytes] | None = None
        try:
            wait_for(path.exists, 10.0, "the sound server listens")
            self.plug()
        except BaseException:
            self.end()
            raise

    def plug(self) -> None:
        """Make the microphone, and let somebody speak into it."""
        self._tell("load-module", "module-null-sink", "sink_name=room", "rate=48000")
        source = ("source_name=microphone", "master=room.monitor")
        self._tell("load-module", "module-remap-source", *source)
        self._tell("set-default-source", "microphone")
        # A shell of its own, so that the voice begins again when it has ended.
        again = 'while paplay --device=room "$0"; do :; done'
        self._speaker = subprocess.Popen(
            ["sh", "-c", again, str(self._voice)],
            env=self.environment,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def unplug(self) -> None:
        """Unload the microphone and what it hears."""
        self._hush()
        self._tell("unload-module", "module-remap-source")
        self._tell("unload-module", "module-null-sink")

    def end(self) -> None:
        """End voice and server."""
        self._hush()
        end(self._server)

    def _hush(self) -> None:
        speaker, self._speaker = self._speaker, None
        if speaker:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(speaker.pid, 9)
            speaker.wait(5.0)

    def _tell(self, *words: str) -> None:
        command = ["pactl", *words]
        subprocess.run(command, env=self.environment, check=True, timeout=20, capture_output=True)


@contextmanager
def microphone(folder: Path, voice: Path) -> Iterator[Microphone]:
    """Have a microphone while the block runs."""
    made = Microphone(folder, voice)
    try:
        yield made
    finally:
        made.end()


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


class Streaming(NamedTuple):
    """A running agent and who subscribes to it."""

    process: "subprocess.Popen[bytes]"
    port: int
    """Of its WebSocket."""
    witness: MessageProbe


@contextmanager
def streaming(
    log: Path,
    *options: str,
    environment: Mapping[str, str] | None = None,
    out: int = subprocess.DEVNULL,
) -> Iterator[Streaming]:
    """Run `tamulag stream` while the block runs; its log goes to a file, its output to `out`.

    Raises:
        StageError: If it does not serve within two minutes, with the end of its log.
    """
    port = free_port()
    command = [sys.executable, "-m", "tamulag.streamer", *options]
    with log.open("wb") as err:
        process = subprocess.Popen(
            [*command, "--websocket", f"127.0.0.1:{port}"],
            env=environment,
            stdout=out,
            stderr=err,
        )
    try:
        with _subscribed(process, port, log) as connection:
            witness = MessageProbe("websocket", _told(connection))
            try:
                yield Streaming(process, port, witness)
            finally:
                end(process)
                witness.join(5.0)
    finally:
        end(process)


def _subscribed(process: "subprocess.Popen[bytes]", port: int, log: Path) -> ClientConnection:
    deadline = time.monotonic() + STARTING
    while process.poll() is None and time.monotonic() < deadline:
        try:
            return connect(f"ws://127.0.0.1:{port}/", compression=None, proxy=None)
        except (OSError, WebSocketException):
            time.sleep(0.05)
    last = "; ".join(log.read_text(errors="replace").splitlines()[-3:]) or "it says nothing"
    how = f"ended with {code}" if (code := process.poll()) is not None else "does not serve"
    raise StageError(f"the agent {how} within {STARTING:g} s; the end of its log: {last}")


def _told(connection: ClientConnection) -> Iterator[str]:
    with contextlib.suppress(ConnectionClosed):
        for payload in connection:
            yield str(payload)
