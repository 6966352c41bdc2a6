"""Each device tried as a run would use it: a real camera, a real sound server."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.devices import mjpeg_camera, need, pulse_server
from tamulag.streamer.app.build_agent import demo_files
from tamulag.streamer.bench.rig.devices import SoundServer
from tamulag.streamer.bench.rig.processes import CAMERA, free_port
from tamulag.streamer.cli.device_check import Meter, try_camera, try_microphone

TRY = """
import json, sys
from dataclasses import asdict
from tamulag.streamer.cli.doctor import microphones
from tamulag.streamer.cli.device_check import try_microphone
listed = [asdict(device) for device in microphones()]
print(json.dumps({"listed": listed, "tried": asdict(try_microphone(sys.argv[1]))}))
"""


def moving(picture: Path, folder: Path) -> Path:
    """Make a film of two seconds of a picture that does not move."""
    need(CAMERA)
    film = folder / "film.mp4"
    read = ["ffmpeg", "-loglevel", "error", "-loop", "1", "-i", str(picture), "-t", "2"]
    write = ["-r", "10", "-vf", "scale=480:-2", str(film)]
    subprocess.run([*read, *write], check=True, timeout=120, stdin=subprocess.DEVNULL)
    return film


@pytest.mark.camera
def test_a_camera_that_sees_a_face(tmp_path: Path) -> None:
    """Pictures are counted, and those with a face among them."""
    portrait, _ = demo_files()
    with mjpeg_camera(moving(portrait, tmp_path)) as camera:
        check = try_camera(camera.url)
    assert check.ok, check.detail
    pictures, faces = (int(word) for word in check.detail.split() if word.isdecimal())
    assert 1 <= faces <= pictures


@pytest.mark.camera
def test_the_doctor_tries_the_camera_that_is_named(tmp_path: Path) -> None:
    """Beside all its other checks."""
    portrait, _ = demo_files()
    program = str(Path(sys.executable).with_name("tamulag"))
    with mjpeg_camera(moving(portrait, tmp_path)) as camera:
        command = [program, "doctor", "--camera", camera.url, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    *others, tried = json.loads(done.stdout.splitlines()[-1])["checks"]
    assert len(others) > 10
    assert tried["name"] == f"capture camera {camera.url}"
    assert tried["ok"], tried


@pytest.mark.camera
def test_a_camera_that_sees_nobody(tmp_path: Path) -> None:
    """It works, and what is missing is said; a run would go on without a face."""
    wall = tmp_path / "wall.png"
    draw = ["ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i", "color=gray:s=320x240"]
    need(CAMERA)
    subprocess.run([*draw, "-frames:v", "1", str(wall)], check=True, timeout=60)
    with mjpeg_camera(moving(wall, tmp_path)) as camera:
        check = try_camera(camera.url)
    assert (check.ok, check.required) == (False, False)
    assert "a face in 0" in check.detail
    assert "look into the camera" in check.remedy


def test_a_camera_that_is_not_there() -> None:
    """It is a fault that stops a run, told in a line."""
    check = try_camera(f"http://127.0.0.1:{free_port()}/cam.mjpg")
    assert (check.ok, check.required) == (False, True)
    assert "\n" not in check.detail


def tried(server: SoundServer, name: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", TRY, name],
        env=server.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found


@pytest.mark.sound
def test_a_microphone_that_hears_speech_and_then_nothing(tmp_path: Path) -> None:
    """The level tells the two apart, and the list has host API and rates."""
    with pulse_server(tmp_path) as server:
        with server.playing(demo_files()[1]):
            loud = tried(server, "pulse")
        quiet = tried(server, "pulse")
    assert loud["tried"]["ok"], loud["tried"]
    assert "dBFS" in loud["tried"]["detail"]
    (pulse,) = [device for device in loud["listed"] if device["name"] == "pulse"]
    assert pulse["detail"].startswith("ALSA, ")
    assert "takes 8 16 44.1 48 kHz" in pulse["detail"]
    assert not quiet["tried"]["ok"]
    assert "unmute" in quiet["tried"]["remedy"]


def test_a_microphone_that_is_not_there() -> None:
    """It is named, and nothing hangs."""
    check = try_microphone("no such microphone")
    assert (check.ok, check.required) == (False, True)
    assert "microphone" in check.detail


def test_the_meter_measures_peak_and_level() -> None:
    """A sine of half the scale has its level 3 dB below its peak."""
    meter = Meter()
    sine = 0.5 * np.sin(np.arange(16000) * 0.1).astype(np.float32)
    for start in range(0, 16000, 320):
        assert meter.push(sine[start : start + 320], start) == []
    assert meter.peak == pytest.approx(0.5, abs=1e-3)
    assert meter.level == pytest.approx(0.5 / 2**0.5, abs=1e-3)
