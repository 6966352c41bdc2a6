"""Inputs of the sound server are found and recorded by their own names, monitors among them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.devices import pulse_server
from tamulag.streamer.sources.pulse_inputs import PulseInput, led_to, matching, pulse_inputs

HEADSET = PulseInput("usb.monitor", "Monitor of Headset", "s16le 2ch 44100Hz")
SPEAKER = PulseInput("pci.monitor", "Monitor of Speaker", "s16le 2ch 48000Hz")

OPEN = """
import sys, time
from tamulag.streamer.core.source import SourceError
from tamulag.streamer.cli.doctor import microphones
from tamulag.streamer.features.audio import AudioFeatures
from tamulag.streamer.features.audio_pipeline import AudioPipeline
from tamulag.streamer.sources.microphone import MicrophoneSource

print([device.name for device in microphones()])
sound = AudioPipeline(AudioFeatures(), None, threaded=False)
source = MicrophoneSource(sys.argv[1], sound, now=time.monotonic)
try:
    source.open()
except SourceError as error:
    print("refused", error)
else:
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("usb.monitor", [HEADSET]),
        ("Monitor of Speaker", [SPEAKER]),
        ("headset", [HEADSET]),
        ("Monitor", [HEADSET, SPEAKER]),
        ("nope", []),
    ],
)
def test_names_descriptions_and_parts_match(wanted: str, found: list[PulseInput]) -> None:
    """Exact ones win over those that contain it."""
    assert matching((HEADSET, SPEAKER), wanted) == found


def test_the_choice_ends_with_the_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment said before is said again."""
    for before in (None, "other"):
        if before is not None:
            monkeypatch.setenv("PULSE_SOURCE", before)
        with led_to("usb.monitor"):
            assert os.environ["PULSE_SOURCE"] == "usb.monitor"
        assert os.environ.get("PULSE_SOURCE") == before
    with led_to(None):
        assert os.environ["PULSE_SOURCE"] == "other"


@pytest.mark.parametrize("answer", ["exit 1", "echo no", "echo null", "echo '[1]'", "echo '[{}]'"])
def test_without_a_server_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    """No `pactl`, or one that says nothing of use, is no failure."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert pulse_inputs() == ()
    (tmp_path / "pactl").write_text(f"#!/bin/sh\n{answer}\n")
    (tmp_path / "pactl").chmod(0o755)
    assert pulse_inputs() == ()


@pytest.mark.sound
@pytest.mark.parametrize("wanted", ["room.monitor", "Monitor of Null Output"])
def test_a_monitor_is_recorded_by_its_name(tmp_path: Path, wanted: str) -> None:
    """Not the default source, which is another; and it is listed."""
    with (
        pulse_server(tmp_path) as server,
        subprocess.Popen(
            [sys.executable, "-c", OPEN, wanted],
            env=server.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        listed, told = process.stdout.readline(), process.stdout.readline()
        assert "Monitor of" in listed
        assert told == "open\n"
        query = ["pactl", "list", "source-outputs"]
        out = subprocess.run(query, env=server.environment, check=True, capture_output=True)
        names = subprocess.run(
            ["pactl", "list", "short", "sources"],
            env=server.environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        number = out.stdout.decode().partition("\tSource: ")[2].split()[0]
        assert f"{number}\troom.monitor" in names
        process.communicate("", timeout=20)
