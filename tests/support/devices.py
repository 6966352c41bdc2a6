"""Real devices without hardware: a camera by ffmpeg, a microphone on a sound server, a broker.

Knows ffmpeg, PulseAudio and mosquitto. Knows nothing of the package under test.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest


def wait_for(condition: Callable[[], bool], limit: float, what: str) -> None:
    """Wait until `condition` holds.

    Raises:
        TimeoutError: If it does not within `limit` seconds.
    """
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} within {limit:g} s")
        time.sleep(0.02)


def need(tool: str, package: str) -> None:
    """Skip the test where a command is missing, naming what to install."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is missing: apt install {package}")


def free_port() -> int:
    """Return a TCP port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that this test started, by its id."""
    process.kill()
    process.wait(5.0)


def listens(process: subprocess.Popen[bytes]) -> bool:
    """Return whether a process has opened its TCP port, without connecting to it."""
    return bool(psutil.Process(process.pid).net_connections("tcp"))


class Camera(NamedTuple):
    """An MJPEG camera; it serves one viewer."""

    url: str
    process: subprocess.Popen[bytes]

    def unplug(self) -> None:
        """Let the camera vanish."""
        end(self.process)


@contextmanager
def mjpeg_camera(clip: Path, port: int | None = None) -> Iterator[Camera]:
    """Show a clip again and again, in real time, as a camera does."""
    need("ffmpeg", "ffmpeg")
    url = f"http://127.0.0.1:{port or free_port()}/cam.mjpg"
    play = ["ffmpeg", "-loglevel", "error", "-re", "-stream_loop", "-1", "-i", str(clip), "-an"]
    serve = ["-c:v", "mjpeg", "-q:v", "4", "-f", "mpjpeg", "-listen", "1", url]
    process = subprocess.Popen([*play, *serve], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: listens(process), 5.0, "ffmpeg listens")
        yield Camera(url, process)
    finally:
        end(process)


@contextmanager
def mosquitto() -> Iterator[int]:
    """Run a broker on a free port of the loopback and give the port."""
    need("mosquitto", "mosquitto")
    port = free_port()
    serve = ["mosquitto", "-p", str(port)]
    process = subprocess.Popen(serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: listens(process), 5.0, "mosquitto listens")
        yield port
    finally:
        end(process)


def spoken(clip: Path, wav: Path, seconds: float) -> Path:
    """Write the sound of a clip, repeated for some seconds, as 16 kHz mono."""
    need("ffmpeg", "ffmpeg")
    read = ["ffmpeg", "-loglevel", "error", "-stream_loop", "-1", "-i", str(clip), "-vn"]
    write = ["-t", f"{seconds:g}", "-ac", "1", "-ar", "16000", str(wav)]
    subprocess.run([*read, *write], check=True, timeout=60, stdin=subprocess.DEVNULL)
    return wav


class SoundServer(NamedTuple):
    """A private PulseAudio with one microphone, `room`, that hears what is played into it."""

    environment: dict[str, str]
    """For every process that is to use this server."""
    process: subprocess.Popen[bytes]

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let the server stand still while the block runs, without closing anything."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def play(self, wav: Path) -> None:
        """Speak a sound file into the microphone; returns when it has been heard."""
        self._run("paplay", "--device=room", str(wav))

    @contextmanager
    def speaking(self, wav: Path) -> Iterator[None]:
        """Speak a sound file into the microphone while the block runs."""
        process = subprocess.Popen(["paplay", "--device=room", str(wav)], env=self.environment)
        try:
            yield
        finally:
            end(process)

    def unplug(self) -> None:
        """Pull the microphone's cable."""
        self._run("pactl", "unload-module", "module-remap-source")
        self._run("pactl", "unload-module", "module-null-sink")

    def _run(self, *command: str) -> None:
        subprocess.run(command, env=self.environment, check=True, timeout=60, capture_output=True)


@contextmanager
def pulse_server(folder: Path) -> Iterator[SoundServer]:
    """Run a sound server that touches nothing but `folder`.

    PortAudio reads the environment when it starts, so capture in a subprocess that is given
    `environment`.
    """
    for tool, package in (("pulseaudio", "pulseaudio"), ("pactl", "pulseaudio-utils")):
        need(tool, package)
    (folder / ".asoundrc").write_text("pcm.!default { type pulse }\nctl.!default { type pulse }\n")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PULSE_")}
    environment |= {
        "HOME": str(folder),
        "XDG_RUNTIME_DIR": str(folder),
        "XDG_CONFIG_HOME": str(folder),
    }
    socket_path = folder / "pulse" / "native"
    modules = [
        f"module-native-protocol-unix socket={socket_path}",
        "module-null-sink sink_name=room rate=48000",
        "module-remap-source source_name=microphone master=room.monitor",
    ]
    environment["PULSE_SERVER"] = f"unix:{socket_path}"
    serve = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--log-level=error"]
    for module in modules:
        serve += ["-L", module]
    socket_path.parent.mkdir()
    process = subprocess.Popen(serve, env=environment, stderr=subprocess.DEVNULL)
    try:
        server = SoundServer(environment, process)
        wait_for(socket_path.exists, 5.0, "the sound server listens")
        server._run("pactl", "set-default-source", "microphone")
        yield server
    finally:
        end(process)
