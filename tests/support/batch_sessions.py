"""Random steps of sessions, for the tests of batches and snapshots."""

from collections.abc import Iterator
from itertools import count

import numpy as np

from tamulag.models import MODALITIES, ModelConfig
from tamulag.models.runtime.step_engine import StepInput, TickArrays, Utterance

HOP = 25


def rows(rng: np.random.Generator, dim: int, time: np.ndarray, ready: np.ndarray) -> TickArrays:
    """Return random rows of which about a third is masked, with NaN behind the mask."""
    values = rng.standard_normal((len(time), dim)).astype(np.float32)
    mask = rng.random(len(time)) > 1 / 3
    values[~mask] = np.nan
    return TickArrays(values, mask, time.astype(np.int64), ready.astype(np.int64))


def utterance(rng: np.random.Generator, dim: int, end: int) -> Utterance:
    """Return 1 to 12 tokens of the last two seconds."""
    size = int(rng.integers(1, 13))
    time = np.sort(rng.integers(max(0, end - 100), end, size))
    spoken = rows(rng, dim, time, np.full(size, end))
    whole = spoken._replace(values=np.nan_to_num(spoken.values), mask=np.ones(size, np.bool_))
    return Utterance(whole, bool(rng.random() < 0.3), bool(rng.random() < 0.3))


def turns(config: ModelConfig, seed: int) -> Iterator[StepInput]:
    """Yield one turn after another: voices that pause, words that are revised, faces that go."""
    rng = np.random.default_rng(seed)
    for number in count(1):
        end = number * HOP
        voice, face = np.arange(end - HOP, end), np.arange(end - HOP, end, 5)
        brought = {
            "audio": rows(rng, config.audio.dim, voice, voice + 1),
            "vision": rows(rng, config.vision.dim, face, face + 5),
        }
        yield StepInput(
            end,
            frozenset(name for name in MODALITIES if rng.random() < 0.1),
            {name: part for name, part in brought.items() if rng.random() < 0.8},
            [utterance(rng, config.text.dim, end) for _ in range(rng.integers(0, 3))],
            (bool(rng.random() < 0.9), bool(rng.random() < 0.9), bool(rng.random() < 0.9)),
        )
