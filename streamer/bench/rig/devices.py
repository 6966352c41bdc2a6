"""Devices without hardware: a network camera by ffmpeg, a microphone of a private PulseAudio.

Knows ffmpeg and PulseAudio. Knows no agent.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .processes import end, free_port, listens, wait_for

STARTING = 10.0
"""Seconds that a device may take to be there."""

STILLS = (".jpg", ".jpeg", ".png")


class Camera:
    """A network camera that shows one picture or one clip all the time; it serves one viewer.

    Args:
        file: Picture or clip.
        port: Of the loopback; None: a free one.
    """

    def __init__(self, file: Path, port: int | None = None) -> None:
        still = ["-re", "-loop", "1", "-framerate", "15", "-i", str(file), "-vf", "scale=320:-2"]
        clip = ["-re", "-stream_loop", "-1", "-i", str(file), "-an"]
        self._show = still if file.suffix in STILLS else clip
        self._port = port or free_port()
        self.url = f"http://127.0.0.1:{self._port}/cam.mjpg"
        self.start()

    def start(self) -> None:
        """Plug it in and wait until it listens."""
        form = [
            "-pix_fmt",
            "yuvj420p",
            "-c:v",
            "mjpeg",
            "-q:v",
            "4",
            "-f",
            "mpjpeg",
            "-listen",
            "1",
        ]
        self._process = subprocess.Popen(
            ["ffmpeg", "-loglevel", "quiet", *self._show, *form, self.url], stdin=subprocess.DEVNULL
        )
        try:
            wait_for(lambda: listens(self._port), STARTING, "ffmpeg listens")
        except BaseException:
            self.unplug()
            raise

    def unplug(self) -> None:
        """Let it vanish; may be called twice."""
        end(self._process)

    def freeze(self) -> None:
        """Let it stand still without closing its connection."""
        self._process.send_signal(signal.SIGSTOP)


@contextmanager
def camera(file: Path, port: int | None = None) -> Iterator[Camera]:
    """Have a camera while the block runs."""
    made = Camera(file, port)
    try:
        yield made
    finally:
        made.unplug()


class SoundServer:
    """A private PulseAudio in `folder` with one microphone, which takes up what is played to it.

    Attributes:
        environment: For every process that is to use it: PortAudio reads it when it starts.
    """

    def __init__(self, folder: Path) -> None:
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
        self._process = subprocess.Popen([*command, *quiet], env=self.environment)
        try:
            wait_for(path.exists, STARTING, "the sound server listens")
            self.plug()
        except BaseException:
            self.end()
            raise

    def plug(self) -> None:
        """Plug the microphone in."""
        self._run("pactl", "load-module", "module-null-sink", "sink_name=room", "rate=48000")
        source = ("source_name=microphone", "master=room.monitor")
        self._run("pactl", "load-module", "module-remap-source", *source)
        self._run("pactl", "set-default-source", "microphone")

    def unplug(self) -> None:
        """Pull the microphone's cable."""
        self._run("pactl", "unload-module", "module-remap-source")
        self._run("pactl", "unload-module", "module-null-sink")

    def play(self, sound: Path) -> None:
        """Play a sound file to the microphone, at most a minute; returns at its end."""
        self._run("paplay", "--device=room", str(sound))

    @contextmanager
    def playing(self, sound: Path) -> Iterator[None]:
        """Play a sound file again and again while the block runs, when there is a microphone."""
        # A shell of its own begins again; it ends with the server at the latest.
        again = 'while kill -0 "$1" 2>/dev/null; do paplay --device=room "$0" || sleep 0.1; done'
        speaker = subprocess.Popen(
            ["sh", "-c", again, str(sound), str(self._process.pid)],
            env=self.environment,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(speaker.pid, signal.SIGKILL)
            speaker.wait(5.0)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let the server stand still while the block runs, without closing anything."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """End the server."""
        end(self._process)

    def _run(self, *command: str) -> None:
        subprocess.run(command, env=self.environment, check=True, timeout=60, capture_output=True)


@contextmanager
def sound_server(folder: Path) -> Iterator[SoundServer]:
    """Run a sound server that touches nothing but `folder`."""
    made = SoundServer(folder)
    try:
        yield made
    finally:
        made.end()


@contextmanager
def microphone(folder: Path, voice: Path) -> Iterator[SoundServer]:
    """Have a microphone, into which a voice speaks all the time, while the block runs."""
    with sound_server(folder) as server, server.playing(voice):
        yield server
