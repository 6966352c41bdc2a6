"""The stage's devices are real, and what is missing is named with its remedy."""

import subprocess
from pathlib import Path

import pytest

from support.devices import need
from tamulag.streamer.app.build_agent import demo_files
from tamulag.streamer.bench.rig.processes import (
    BROKER,
    CAMERA,
    StageError,
    broker,
    camera,
    missing,
    streaming,
    wait_for,
)


def test_a_missing_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the Debian package that holds it; nothing is said where all are there."""
    assert missing(()) is None
    monkeypatch.setenv("PATH", "")
    assert missing(BROKER) == "mosquitto is missing: apt-get install mosquitto"


@pytest.mark.broker
def test_a_broker_keeps_its_port_over_a_restart() -> None:
    """Who was connected finds it again, and what is retained can be asked for."""
    for tool in BROKER:
        need(tool, "mosquitto-clients")
    with broker() as hub:
        hub.process.kill()
        hub.process.wait(5.0)
        hub.start()
        say = ["mosquitto_pub", "-p", str(hub.port), "-r", "-t", "tamulag/v1/a/b/status"]
        subprocess.run([*say, "-m", '{"state": "offline"}'], check=True, timeout=10)
        assert hub.retained().strip() == '{"state": "offline"}'


@pytest.mark.camera
def test_the_camera_shows_pictures() -> None:
    """A client gets the JPEG of the portrait."""
    need(CAMERA[0], "ffmpeg")
    with camera(demo_files()[0]) as eye:
        read = ["ffmpeg", "-loglevel", "error", "-i", eye.url, "-frames:v", "1", "-f", "null", "-"]

        def is_seen() -> bool:
            return (
                subprocess.run(read, check=False, capture_output=True, timeout=20).returncode == 0
            )

        wait_for(is_seen, 20.0, "a picture comes")


def test_an_agent_that_does_not_start_says_why(tmp_path: Path) -> None:
    """The error carries the end of its log."""
    with (
        pytest.raises(StageError, match=r"ended with 1.*nowhere\.mp4"),
        streaming(tmp_path / "log", "--source", "nowhere.mp4", "--asr", "none"),
    ):
        raise AssertionError("it cannot start")


def test_waiting_has_a_limit() -> None:
    """What does not come is named."""
    with pytest.raises(StageError, match=r"rain not within 0\.1 s"):
        wait_for(lambda: False, 0.1, "rain")
