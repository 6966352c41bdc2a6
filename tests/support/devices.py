"""The rig's camera and microphone for tests, or a skip that names what to install."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tamulag.streamer.bench.rig import devices
from tamulag.streamer.bench.rig.devices import Camera, SoundServer
from tamulag.streamer.bench.rig.processes import CAMERA, MICROPHONE, missing


def need(tools: Sequence[str]) -> None:
    """Skip the test where a command is missing."""
    if reason := missing(tools):
        pytest.skip(reason)


@contextmanager
def mjpeg_camera(clip: Path, port: int | None = None) -> Iterator[Camera]:
    """Show a clip again and again, in real time, as a camera does."""
    need(CAMERA)
    with devices.camera(clip, port) as camera:
        yield camera


@contextmanager
def pulse_server(folder: Path) -> Iterator[SoundServer]:
    """Run a sound server that touches nothing but `folder`.

    PortAudio reads the environment when it starts, so capture in a subprocess that is given
    `environment`.
    """
    need(MICROPHONE)
    with devices.sound_server(folder) as server:
        yield server


def spoken(clip: Path, wav: Path, seconds: float) -> Path:
    """Write the sound of a clip, repeated for some seconds, as 16 kHz mono."""
    need(CAMERA)
    read = ["ffmpeg", "-loglevel", "error", "-stream_loop", "-1", "-i", str(clip), "-vn"]
    write = ["-t", f"{seconds:g}", "-ac", "1", "-ar", "16000", str(wav)]
    subprocess.run([*read, *write], check=True, timeout=60, stdin=subprocess.DEVNULL)
    return wav
