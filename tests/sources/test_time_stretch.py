"""Sound read a little faster or slower keeps its pitch, its level and its place."""

import numpy as np
import pytest

from tamulag.streamer.core.sample import Array
from tamulag.streamer.sources.time_stretch import HALF, TimeStretcher

RATE = 16000


def sine(count: int, hertz: float, step: float = 1.0) -> Array:
    return np.sin(2 * np.pi * hertz * step * np.arange(count) / RATE).astype(np.float32)


def stretched(sound: Array, step: float, size: int) -> Array:
    stretch = TimeStretcher(0.0)
    blocks = [sound[at : at + size] for at in range(0, len(sound), size)]
    return np.concatenate([stretch.push(block, step) for block in blocks])


@pytest.mark.parametrize("hertz", [100.0, 1000.0, 5000.0])
@pytest.mark.parametrize("step", [1 - 300e-6, 1.0, 1 + 300e-6])
def test_a_sine_is_read_at_the_right_places(hertz: float, step: float) -> None:
    """The output is the same tone, read at steps of `step` samples, to 1 percent."""
    out = stretched(sine(2 * RATE, hertz), step, 320)
    wanted = sine(len(out), hertz, step)
    assert np.abs(out - wanted)[HALF:].max() < 0.01


def test_block_size_changes_nothing() -> None:
    """How the sound was cut leaves no seam."""
    sound = np.random.default_rng(0).normal(size=RATE).astype(np.float32)
    whole = stretched(sound, 1.0003, RATE)
    for size in (1, 7, 320):
        assert stretched(sound, 1.0003, size) == pytest.approx(whole, abs=1e-3)


def test_without_stretch_the_sound_is_what_it_was() -> None:
    """At a step of 1 each sample comes back, later by half a filter."""
    sound = np.random.default_rng(0).normal(size=RATE).astype(np.float32)
    out = stretched(sound, 1.0, 320)
    assert out == pytest.approx(sound[: len(out)], abs=1e-5)
    assert len(out) == RATE - HALF


def test_position_is_that_of_the_next_sample() -> None:
    """`position` is the place in the input that the output has reached."""
    stretch = TimeStretcher(5.0)
    count = len(stretch.push(np.zeros(1000, np.float32), 1.25))
    assert stretch.position == pytest.approx(5.0 + 1.25 * count)
