"""The devices show and play what they were given."""

import subprocess
from pathlib import Path

import pytest

from support.devices import mjpeg_camera, pulse_server
from tamulag.streamer.app.build_agent import demo_files


@pytest.mark.camera
def test_the_camera_shows_pictures() -> None:
    """A client gets the JPEG of the portrait."""
    with mjpeg_camera(demo_files()[0]) as camera:
        read = ["ffmpeg", "-loglevel", "error", "-i", camera.url, "-frames:v", "1", "-f", "null"]
        subprocess.run([*read, "-"], check=True, capture_output=True, timeout=20)


@pytest.mark.sound
def test_the_microphone_comes_back(tmp_path: Path) -> None:
    """After it was unplugged and plugged in, what is played is recorded again."""
    with pulse_server(tmp_path) as server, server.playing(demo_files()[1]):
        server.unplug()
        server.plug()
        record = ["parec", "--device=microphone", "--raw", "--format=s16le"]
        with subprocess.Popen(record, env=server.environment, stdout=-1) as recorder:
            assert recorder.stdout is not None
            try:
                assert any(any(recorder.stdout.read(9600)) for _ in range(100))
            finally:
                recorder.kill()
