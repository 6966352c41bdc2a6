"""Real speech for the tests of the recognisers, and what they all ask of it."""

import importlib.util
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from torchaudio.functional import resample

from tamulag.streamer.core.sample import SAMPLE_RATE, Array, Word
from tamulag.streamer.features.asr.recogniser import Recogniser
from tamulag.streamer.features.asr.transcript import Hypothesis

PAUSE = np.zeros(2 * SAMPLE_RATE, np.float32)


def read(path: Path) -> Array:
    with wave.open(str(path)) as file:
        pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        sound = torch.from_numpy(pcm.astype(np.float32) / 32768)
        out: Array = resample(sound, file.getframerate(), SAMPLE_RATE).numpy()
        return out


def packaged(package: str, path: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is missing: pip install {package.replace('_', '-')}")
    return Path(spec.submodule_search_locations[0]) / path


def feed(
    recogniser: Recogniser, sound: Array, start: int = 0, size: int = 1600
) -> list[Hypothesis]:
    return [
        hypothesis
        for i in range(0, len(sound), size)
        for hypothesis in recogniser.accept(sound[i : i + size], start + i)
    ]


def hear(
    recogniser: Recogniser, sound: Array, start: int = 0, size: int = 1600
) -> list[Hypothesis]:
    return feed(recogniser, sound, start, size) + recogniser.finish()


def finals(hypotheses: list[Hypothesis]) -> list[tuple[Word, ...]]:
    return [h.words for h in hypotheses if h.final and h.words]


def in_order(words: tuple[Word, ...], start: float, end: float) -> bool:
    times = [time for word in words for time in (word.start, word.end)]
    return sorted(times) == times and times[0] >= start and times[-1] <= end
