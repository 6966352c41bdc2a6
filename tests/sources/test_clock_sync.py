"""Sound of a drifting device stays within one tick of its place, and a gap stays a gap."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamulag.streamer.core.sample import Array
from tamulag.streamer.sources.clock_sync import SAMPLE_RATE, TOLERANCE, ClockSync

TRANSPORT = 0.005  # seconds that even the least late block needs


class Heard(NamedTuple):
    true: float
    """When the sound up to here was really made."""
    end: float
    """Where it was placed."""


class Device:
    """A sound card whose clock is off, and whose blocks arrive late by chance.

    Args:
        ppm: By how much it counts too fast.
        block: Seconds.
    """

    def __init__(self, ppm: float, *, block: float = 0.02, jitter: float = 0.003, seed: int = 0):
        self._random = np.random.default_rng(seed)
        self._rate = SAMPLE_RATE * (1 + ppm * 1e-6)
        self._length = round(block * SAMPLE_RATE)
        self._jitter = jitter
        self._arrival = 0.0
        self._count = 0
        self._lost = 0
        self.placement = ClockSync(SAMPLE_RATE)

    def lose(self, samples: int) -> None:
        """Lose samples that nobody counts."""
        self._lost += samples

    def skip(self) -> None:
        """Count a block that nobody takes."""
        self._count += self._length

    def block(self, *, is_torn: bool = False) -> tuple[int, Array, Heard]:
        before, self._count = self._count, self._count + self._length
        late = self._random.exponential(self._jitter) + 0.3 * (self._random.random() < 0.01)
        now = 1.0 + (self._count + self._lost) / self._rate + TRANSPORT
        self._arrival = max(self._arrival, now + late)
        sound = np.zeros(self._length, np.float32)
        span = (before, self._count)
        start, out = self.placement.push(sound, span, self._arrival, is_torn=is_torn)
        place = self.placement._stretch.position + self._lost
        heard = Heard(1.0 + place / self._rate + TRANSPORT, (start + len(out)) / SAMPLE_RATE)
        return start, out, heard

    def play(self, seconds: float) -> Iterator[Heard]:
        for _ in range(round(seconds * SAMPLE_RATE / self._length)):
            yield self.block()[2]


def worst(heard: Iterator[Heard]) -> float:
    return max(abs(place.end - place.true) for place in heard)


@pytest.mark.parametrize("ppm", [-300, 100])
def test_a_drifting_device_stays_within_a_tick_for_an_hour(ppm: int) -> None:
    """An hour of 100 ms blocks: never a tick off after two seconds, nothing lost, no gap."""
    device = Device(ppm, block=0.1)
    for _ in device.play(2.0):
        pass
    assert worst(device.play(3600.0)) < TOLERANCE
    assert (device.placement.gaps, device.placement.dropped) == (0, 0.0)
    assert device.placement.fit.slope * -1e6 == pytest.approx(ppm, abs=2)


@settings(max_examples=8, deadline=None)
@given(st.integers(-300, 300), st.floats(0.0005, 0.005), st.integers(0, 99))
def test_any_drift_stays_within_a_tick(ppm: int, jitter: float, seed: int) -> None:
    """Five minutes of 100 ms blocks with any drift and jitter: the same."""
    device = Device(ppm, block=0.1, jitter=jitter, seed=seed)
    for _ in device.play(10.0):
        pass
    assert worst(device.play(300.0)) < TOLERANCE
    assert device.placement.dropped < 0.1


def test_what_comes_out_has_no_seam() -> None:
    """Each block begins where the last one ended."""
    device = Device(300)
    blocks = [device.block()[:2] for _ in range(3000)]
    ends = [start + len(sound) for start, sound in blocks]
    assert all(start == end for (start, _), end in zip(blocks[60:], ends[59:], strict=False))


def test_counted_blocks_that_were_dropped_leave_their_length() -> None:
    """A second that the queue dropped is missing, to the millisecond, and told once."""
    device = Device(0, jitter=0.0)
    for _ in device.play(60.0):
        pass
    *_, before = device.block()
    for _ in range(50):
        device.skip()
    start, _, after = device.block(is_torn=True)
    assert start / SAMPLE_RATE - before.end == pytest.approx(1.0, abs=0.002)
    assert after.end == pytest.approx(after.true, abs=0.002)
    assert device.placement.gaps == 1
    assert device.placement.dropped == pytest.approx(1.0, abs=0.002)


def test_an_overflow_leaves_a_gap_of_the_length_that_arrivals_tell() -> None:
    """After a loss of unknown length the sound goes on where the clock says."""
    device = Device(0, jitter=0.001)
    for _ in device.play(60.0):
        pass
    device.lose(8000)
    device.placement.fit.restart()
    *_, after = device.block(is_torn=True)
    assert after.end == pytest.approx(after.true, abs=TOLERANCE)
    assert device.placement.gaps == 1
    assert device.placement.dropped == pytest.approx(0.5, abs=TOLERANCE)


def test_a_silent_loss_is_placed_anew_within_six_seconds() -> None:
    """A driver that loses 60 ms and says nothing: the arrivals tell it."""
    device = Device(0, jitter=0.001)
    for _ in device.play(60.0):
        pass
    device.lose(960)
    for _ in device.play(6.5):
        pass
    assert worst(device.play(10.0)) < 0.005
    assert device.placement.gaps == 1


def test_no_time_comes_twice() -> None:
    """A late first block puts sound too late; when that is seen, what overlaps is cut."""
    placement = ClockSync(SAMPLE_RATE)
    block = np.zeros(320, np.float32)
    arrivals = [2.5] + [1.04 + 0.02 * n for n in range(200)]
    out = [
        placement.push(block, (320 * n, 320 * n + 320), arrival, is_torn=False)
        for n, arrival in enumerate(arrivals)
    ]
    heard = [(start, start + len(sound)) for start, sound in out if len(sound)]
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(heard))
    assert heard[-1][1] / SAMPLE_RATE == pytest.approx(arrivals[-1], abs=0.002)


def test_latency_is_subtracted() -> None:
    """A known delay of the device moves the sound back."""
    block = np.zeros(320, np.float32)
    starts = [
        ClockSync(SAMPLE_RATE, latency).push(block, (0, 320), 5.0, is_torn=False)[0]
        for latency in (0.0, 0.25)
    ]
    assert starts[0] - starts[1] == 4000
