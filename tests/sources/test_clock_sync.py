"""Sound of a drifting device stays within one tick of its place, and a gap stays a gap."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from tamulag.streamer.bench.device_clocks import SETTLE, Device, Heard, Silence, measure
from tamulag.streamer.core.sample import SAMPLE_RATE
from tamulag.streamer.sources.clock_sync import TOLERANCE, ClockSync
from tamulag.streamer.sources.time_stretch import TimeStretcher

NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
"""A failure is reported as it was found: to shrink five minutes of sound takes many minutes."""


def worst(heard: Iterator[Heard]) -> float:
    return max(abs(place.end - place.true) for place in heard)


@pytest.mark.parametrize("ppm", [-300, 100])
def test_a_drifting_device_stays_within_a_tick_for_an_hour(ppm: int) -> None:
    """An hour of 100 ms blocks: never a tick off after two seconds, nothing lost, no gap."""
    device = Device(ppm, block=0.1, stretch=Silence)
    for _ in device.play(2.0):
        pass
    assert worst(device.play(3600.0)) < TOLERANCE
    assert (device.placement.gaps, device.placement.dropped) == (0, 0.0)
    assert device.placement.fit.slope * -1e6 == pytest.approx(ppm, abs=2)


@settings(max_examples=8, deadline=None, phases=NO_SHRINKING)
@given(
    st.integers(-300, 300), st.sampled_from([0.02, 0.1]), st.floats(0.0005, 0.005), st.integers(0)
)
@example(0, 0.1, 0.00390625, 25)  # the first block late by 0.3 s
@example(-16, 0.1, 0.005, 3849227907)  # the second block late by 0.3 s, before two agree
@example(239, 0.1, 0.005, 3634921783)  # the first block late, and the fourth
@example(-266, 0.01, 0.005, 3230141114)  # late again before it caught up, four times
def test_any_drift_stays_within_a_tick(ppm: int, block: float, jitter: float, seed: int) -> None:
    """Five minutes with any drift and jitter: no sound is cut and no gap left, at no time.

    The start may hold sound back, see the next test; from 2 s on no sound is a tick off.
    """
    device = Device(ppm, block=block, jitter=jitter, seed=seed, stretch=Silence)
    for _ in device.play(SETTLE):
        pass
    assert worst(device.play(300.0)) < TOLERANCE
    assert (device.placement.gaps, device.placement.dropped) == (0, 0.0)
    assert device.placement.fit.steps == 0


@settings(max_examples=300, deadline=None, phases=NO_SHRINKING, derandomize=True)
@given(
    st.integers(-300, 300),
    st.sampled_from([0.01, 0.02, 0.1]),
    st.floats(0.0005, 0.005),
    st.integers(0),
)
def test_no_start_cuts_sound(ppm: int, block: float, jitter: float, seed: int) -> None:
    """However late the first blocks are, all sound comes out, from the first sample on.

    The start may hold sound back, commonly for two blocks and at most for a second of arrivals,
    and nothing else. The same examples each time: of blocks of 10 ms, one start in some 10,000 has
    late blocks so close together that a second does not suffice.
    """
    device = Device(ppm, block=block, jitter=jitter, seed=seed, stretch=Silence)
    out = [(start, len(sound)) for start, sound, _ in (device.block() for _ in range(150))]
    heard = [(start, start + length) for start, length in out if length]
    assert all(one[1] == other[0] for one, other in itertools.pairwise(heard))
    assert heard[0][0] / SAMPLE_RATE == pytest.approx(1.005, abs=TOLERANCE)
    assert heard[-1][1] - heard[0][0] == pytest.approx(150 * block * SAMPLE_RATE, abs=100)
    assert (device.placement.gaps, device.placement.dropped) == (0, 0.0)


def test_sound_begins_when_three_blocks_agree() -> None:
    """Blocks that come in time are held back for two blocks, and their place is the least late."""
    placement = ClockSync(SAMPLE_RATE, settles=True)
    block = np.zeros(320, np.float32)
    arrivals = [1.028, 1.045, 1.06]
    out = [
        placement.push(block, (320 * n, 320 * n + 320), arrival, is_torn=False)
        for n, arrival in enumerate(arrivals)
    ]
    assert [(start, len(sound)) for start, sound in out[:2]] == [(0, 0), (0, 0)]
    assert out[2][0] == SAMPLE_RATE
    assert len(out[2][1]) == pytest.approx(960, abs=20)


def test_a_gap_at_the_start_costs_what_was_held_back() -> None:
    """Sound that was held back cannot be joined to that behind a gap; it is counted as dropped."""
    placement = ClockSync(SAMPLE_RATE, settles=True)
    block = np.zeros(320, np.float32)
    placement.push(block, (0, 320), 1.02, is_torn=False)
    start, sound = placement.push(block, (640, 960), 1.06, is_torn=True)
    assert start / SAMPLE_RATE == pytest.approx(1.04, abs=0.001)
    assert len(sound)
    assert (placement.gaps, placement.dropped) == (1, 0.02)


def test_places_of_a_senders_clock_are_trusted() -> None:
    """Exact places need no second block: the first one comes out at once."""
    block = np.zeros(320, np.float32)
    start, sound = ClockSync(SAMPLE_RATE, settles=False).push(block, (0, 320), 1.02, is_torn=False)
    assert start == SAMPLE_RATE
    assert len(sound)


def test_an_hour_of_devices_is_measured() -> None:
    """`measure` tells how far any device was off; here a few, for a minute."""
    row = measure(5, 60.0, seed=0)
    assert (row.devices, row.seconds) == (5, 60.0)
    assert 0 < row.worst_error < TOLERANCE
    assert (row.dropped_max, row.dropped_total, row.invented_total) == (0.0, 0.0, 0.0)
    assert (row.gaps, row.steps) == (0, 0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2000), st.floats(0.99, 1.01)), max_size=50))
def test_simulated_silence_is_as_long_as_sound(pushes: list[tuple[int, float]]) -> None:
    """Where `measure` computes only places, they are those of the real sound."""
    sound, silence = TimeStretcher(5.0), Silence(5.0)
    for length, step in pushes:
        block = np.zeros(length, np.float32)
        assert len(silence.push(block, step)) == len(sound.push(block, step))
        assert silence.position == pytest.approx(sound.position)


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
    """A late first block, if trusted, puts sound too late; when that is seen, overlap is cut."""
    placement = ClockSync(SAMPLE_RATE, settles=False)
    block = np.zeros(320, np.float32)
    arrivals = [2.5] + [1.04 + 0.02 * n for n in range(200)]
    out = [
        placement.push(block, (320 * n, 320 * n + 320), arrival, is_torn=False)
        for n, arrival in enumerate(arrivals)
    ]
    heard = [(start, start + len(sound)) for start, sound in out if len(sound)]
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(heard))
    assert heard[-1][1] / SAMPLE_RATE == pytest.approx(arrivals[-1], abs=0.002)


@pytest.mark.parametrize(("latency", "start"), [(0.0, 80000), (0.25, 76000)])
def test_latency_is_subtracted(latency: float, start: int) -> None:
    """A known delay of the device moves the sound back."""
    placement = ClockSync(SAMPLE_RATE, latency, settles=True)
    block = np.zeros(320, np.float32)
    for n in range(3):
        place, _ = placement.push(block, (320 * n, 320 * n + 320), 5.02 + 0.02 * n, is_torn=False)
    assert place == start
