"""Sound files that are made up, or cut out of speech."""

import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt

from support.speech import packaged, read


def tone(path: Path, seconds: float = 0.5, pitch: float = 200.0) -> Path:
    """Write a sound file with a hum."""
    time = np.arange(round(16000 * seconds)) / 16000
    return sound_file(path, 0.25 * np.sign(np.sin(2 * np.pi * pitch * time)))


def two_sentences(folder: Path) -> None:
    """Write `a.wav` and `b.wav`, three seconds each of one reader."""
    speech = read(packaged("moonshine_voice", "assets/beckett.wav"))
    for name, first in (("a", 0), ("b", 48000)):
        sound_file(folder / f"{name}.wav", speech[first : first + 48000])


def sound_file(path: Path, samples: npt.NDArray[np.floating]) -> Path:
    """Write mono sound in [-1, 1] at 16 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((32767 * samples).astype("<i2").tobytes())
    return path
