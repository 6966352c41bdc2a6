"""Sound and picture of a file stay together: a beep and a flash that coincide, second by second."""

import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from support.devices import need
from tamulag.streamer.bench.rig.processes import CAMERA
from tamulag.streamer.core.sample import SAMPLE_RATE, TICK_RATE
from tamulag.streamer.sources.media_reader import MediaReader, TimedPicture, opened

TICK = 1 / TICK_RATE


class Form(NamedTuple):
    """How a file holds its two tracks."""

    end: str
    codec: str
    rate: int
    frames: int
    slow: float = 0.0
    """By how much the stamps of the sound run slower than its samples are counted."""


def beeps_and_flashes(folder: Path, seconds: float, form: Form) -> Path:
    """Make a file that beeps and flashes for a tenth of a second at each full second."""
    need(CAMERA)
    stretch = 1 + form.slow
    beep = f"0.5*sin(2*PI*1000*t)*lt(mod(t*{stretch}+1e-6,1),0.1)"
    flash = "geq=lum='255*lt(mod(T+1e-6,1),0.1)':cb=128:cr=128"
    path = folder / f"beep.{form.end}"
    command = ["ffmpeg", "-loglevel", "error", "-t", f"{seconds:g}"]
    command += ["-f", "lavfi", "-i", f"nullsrc=s=16x16:r={form.frames},{flash}"]
    command += ["-t", f"{seconds:g}", "-f", "lavfi"]
    command += ["-i", f"aevalsrc='{beep}':s={form.rate},asetpts=PTS*{stretch}"]
    command += ["-c:v", "mpeg4", "-g", "10", "-q:v", "2", "-c:a", form.codec, str(path)]
    subprocess.run(command, check=True, timeout=300, stdin=subprocess.DEVNULL)
    return path


def apart(path: Path) -> list[float]:
    """Return for each second by how much the beep comes after its flash."""
    beeps: list[float] = []
    flashes: list[float] = []
    was_loud = was_light = False
    quiet_since = -1.0
    with opened(str(path)) as container:
        for item in MediaReader(container, ("audio", "vision"), 0, None).items():
            if isinstance(item, TimedPicture):
                is_light = bool(item.image.mean() > 128)
                if is_light and not was_light:
                    flashes.append(item.end - 0.1)
                was_light = is_light
                continue
            if not was_loud and np.abs(item.values).max() <= 0.2:
                continue
            for at in range(0, len(item.values), 16):
                time = (item.start + at) / SAMPLE_RATE
                is_loud = bool(np.abs(item.values[at : at + 16]).max() > 0.2)
                if is_loud and not was_loud and time - quiet_since > 0.5:
                    beeps.append(time)
                was_loud, quiet_since = is_loud, time if is_loud else quiet_since
    pairs = [(min(beeps, key=lambda beep: abs(beep - flash)), flash) for flash in flashes]
    return [beep - flash for beep, flash in pairs]


@pytest.mark.parametrize(
    "form",
    [
        Form("mkv", "flac", 44100, 25),
        Form("mp4", "aac", 48000, 25),
        Form("mkv", "flac", 16000, 50),
    ],
    ids=lambda form: f"{form.end}-{form.rate}",
)
def test_a_beep_is_heard_in_the_tick_of_its_flash(tmp_path: Path, form: Form) -> None:
    """Within one tick, whatever container, rate and codec."""
    found = apart(beeps_and_flashes(tmp_path, 8, form))
    assert len(found) >= 7
    assert max(map(abs, found)) < TICK


def test_beep_and_flash_stay_together_for_an_hour(tmp_path: Path) -> None:
    """An hour of a real file: no second of it is a tick off."""
    found = apart(beeps_and_flashes(tmp_path, 3600, Form("mkv", "flac", 8000, 10)))
    print(f"\nan hour: {min(found):+.4f} to {max(found):+.4f} s")
    assert len(found) >= 3599
    assert max(map(abs, found)) < TICK


@pytest.mark.parametrize("slow", [300e-6, -300e-6])
def test_sound_that_drifts_against_its_stamps_is_put_right(tmp_path: Path, slow: float) -> None:
    """A recorder with two clocks: the stamps count, and stay within a tick for ten minutes."""
    found = apart(beeps_and_flashes(tmp_path, 600, Form("mkv", "flac", 8000, 10, slow)))
    assert len(found) >= 599
    assert max(map(abs, found)) < TICK + 0.003  # the stamps' milliseconds, and the ear's
