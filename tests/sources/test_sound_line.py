"""Sound is placed by its count; its stamps correct it, and lose none of it."""

import random
from collections.abc import Callable
from itertools import pairwise

import av
import numpy as np
import pytest

from tamulag.streamer.core.sample import SAMPLE_RATE, Array
from tamulag.streamer.sources.sound_line import SoundLine
from tamulag.streamer.sources.time_line import TimeLine

PART = 1024
FRAMES = 160
"""Ten seconds of frames of 64 ms."""


def noise(count: int = PART * FRAMES) -> Array:
    return np.random.default_rng(3).uniform(-0.5, 0.5, count).astype(np.float32)


class Played:
    """The sound of frames with such stamps, by what `stamp` adds to the time of frame n."""

    def __init__(self, stamp: Callable[[int], float | None]) -> None:
        self.jumps = 0
        line = SoundLine(TimeLine(0.0, self._jumped))
        parts = []
        for n, block in enumerate(np.split(noise(), FRAMES)):
            frame = av.AudioFrame.from_ndarray(block[None], format="flt", layout="mono")
            frame.sample_rate = SAMPLE_RATE
            add = stamp(n)
            parts += line.push(frame, None if add is None else n * PART / SAMPLE_RATE + add)
        parts += line.finish()
        self.values = np.concatenate([values for _, values in parts])
        ends = [start + len(values) for start, values in parts]
        self.gaps = [
            (start - end) / SAMPLE_RATE
            for end, (start, _) in zip(ends, parts[1:], strict=False)
            if start != end
        ]
        self.first, self.end = parts[0][0] / SAMPLE_RATE, ends[-1] / SAMPLE_RATE
        assert all(one <= other for one, other in pairwise(ends))

    def _jumped(self, *_: object) -> None:
        self.jumps += 1


wobbles = {
    "none": lambda n: 0.0,
    "no stamps": lambda n: None,
    "21 ms to and fro": lambda n: 0.1 + 0.021 * (-1) ** n,
    "40 ms in threes": lambda n: 0.1 + 0.04 * (n % 3 - 1),
    "60 ms to and fro": lambda n: 0.1 + 0.06 * (-1) ** n,
    "by chance": lambda n: 0.1 + random.Random(n).uniform(-0.05, 0.05),
}


@pytest.mark.parametrize("name", wobbles)
def test_sound_whose_stamps_wobble_is_whole(name: str) -> None:
    """No gap, no jump, and no more or less of it than the first stamp was off by."""
    played = Played(wobbles[name])
    assert played.gaps == []
    assert played.jumps == 0
    assert len(played.values) == pytest.approx(PART * FRAMES, abs=0.062 * SAMPLE_RATE)
    if name in ("none", "no stamps"):
        np.testing.assert_array_equal(played.values, noise())


@pytest.mark.parametrize(("each", "by"), [(8, 0.022), (8, -0.022), (16, 0.015), (40, 0.05)])
def test_a_clock_that_steps_is_followed_without_a_gap(each: int, by: float) -> None:
    """The sound is stretched by a few percent, and is never far from its stamps."""
    played = Played(lambda n: 1.0 + by * (n // each))
    assert played.gaps == []
    last = 1.0 + by * (FRAMES // each) + FRAMES * PART / SAMPLE_RATE
    assert played.end == pytest.approx(last, abs=0.08)


def test_a_pause_stays_a_pause() -> None:
    """What follows it keeps its place; nothing is stretched over it."""
    played = Played(lambda n: 0.0 if n < 80 else 1.5)
    assert played.gaps == [pytest.approx(1.5, abs=0.005)]
    np.testing.assert_array_equal(played.values, noise())


@pytest.mark.parametrize("back", [-0.3, -5.0, -4000.0])
def test_sound_that_begins_anew_is_all_there(back: float) -> None:
    """A step back is told and loses nothing."""
    played = Played(lambda n: 0.0 if n < 80 else back)
    assert played.jumps == 1
    assert played.gaps == []
    np.testing.assert_array_equal(played.values, noise())
