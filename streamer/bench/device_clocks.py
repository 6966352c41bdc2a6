"""Simulate sound devices whose clocks drift, and measure how well `ClockSync` places their sound.

Knows counts and times. Knows no device, no thread and no clock.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..core.sample import SAMPLE_RATE, Array
from ..sources.clock_sync import ClockSync
from ..sources.time_stretch import HALF, TimeStretcher

TRANSPORT = 0.005
"""Seconds that even the least late block needs from its last sample to its arrival."""

MAX_PPM, MAX_JITTER = 300.0, 0.005
"""Range of the devices that `measure` draws: drift on both sides, and mean lateness in seconds."""

BLOCKS = {0.01: 0.02, 0.02: 0.1, 0.1: 0.88}
"""Share of each block length, in seconds, that `measure` draws.

The time that a device takes is proportional to its number of blocks, so with these shares each
length takes a similar part of the whole: of 1000 devices about 20 send blocks of 10 ms, 100 blocks
of 20 ms, and the others blocks of 100 ms.
"""

SETTLE = 2.0
"""Seconds of sound after which the place error counts."""

_SILENCE = np.zeros(SAMPLE_RATE, np.float32)


class Heard(NamedTuple):
    """Where the end of the placed sound lies, seconds of the session."""

    true: float
    """When it was recorded, and arrived if its block was among the least late."""
    end: float
    """Where it was placed."""


class Device:
    """A sound card whose clock drifts, and whose blocks arrive late by chance.

    Each block is late by an exponential time, and 1 % of them by 0.3 s more. A block never arrives
    before the one in front of it, so those behind a late one arrive together with it.

    Args:
        ppm: By how much it counts too fast, parts per million.
        block: Length of a block, seconds.
        jitter: Mean lateness of a block, seconds.
        seed: Of the lateness.
        stretch: Of the placement; see `ClockSync`.

    Attributes:
        placement: Takes the blocks.
    """

    def __init__(
        self,
        ppm: float,
        *,
        block: float = 0.02,
        jitter: float = 0.003,
        seed: int = 0,
        stretch: Callable[[float], TimeStretcher] = TimeStretcher,
    ) -> None:
        self.placement = ClockSync(SAMPLE_RATE, settles=True, stretch=stretch)
        self._random = np.random.default_rng(seed)
        self._rate = SAMPLE_RATE * (1 + ppm * 1e-6)
        self._length = round(block * SAMPLE_RATE)
        self._jitter = jitter
        self._arrival = 0.0
        self._count = 0
        self._lost = 0

    def lose(self, samples: int) -> None:
        """Lose samples that nobody counts."""
        self._lost += samples

    def skip(self) -> None:
        """Count a block that nobody takes."""
        self._count += self._length

    def block(self, *, is_torn: bool = False) -> tuple[int, Array, Heard]:
        """Send the next block.

        Args:
            is_torn: Samples are missing before it.

        Returns:
            What `ClockSync.push` returned, and where the end of it lies.
        """
        before, self._count = self._count, self._count + self._length
        late = self._random.exponential(self._jitter) + 0.3 * (self._random.random() < 0.01)
        arrival = self._recorded(self._count) + late
        self._arrival = max(self._arrival, arrival)
        span = (before, self._count)
        values = _SILENCE[: self._length]
        start, sound = self.placement.push(values, span, self._arrival, is_torn=is_torn)
        true = self._recorded(self.placement.position)
        return start, sound, Heard(true, (start + len(sound)) / SAMPLE_RATE)

    def play(self, seconds: float) -> Iterator[Heard]:
        """Send blocks for some seconds of sound, and yield where what comes out ends."""
        for _ in range(self.blocks(seconds)):
            _, sound, placed = self.block()
            if len(sound):
                yield placed

    def blocks(self, seconds: float) -> int:
        """Return how many blocks are some seconds of sound."""
        return round(seconds * SAMPLE_RATE / self._length)

    def _recorded(self, counted: float) -> float:
        return 1.0 + (counted + self._lost) / self._rate + TRANSPORT


class Silence(TimeStretcher):
    """Silence as long as the sound that `TimeStretcher` would return, in a tenth of its time.

    Args:
        first: Number of the first sample that will be pushed.
    """

    def __init__(self, first: float) -> None:
        super().__init__(first)
        self._pushed = first

    def push(self, block: Array, step: float) -> Array:
        """Return the silence that the block completes, shape (m,); see `TimeStretcher.push`."""
        self._pushed += len(block)
        count = max(int(-((self.position - self._pushed + HALF) // step)), 0)
        self.position += step * count
        return _SILENCE[:count] if count <= len(_SILENCE) else np.zeros(count, np.float32)


@dataclass(frozen=True)
class ClockRow:
    """What some simulated devices showed; their sound is complete, so nothing may be missing."""

    devices: int
    seconds: float
    """Of each device."""
    worst_error: float
    """Seconds by which sound of any device was placed beside its true time, after `SETTLE`."""
    dropped_max: float
    """Seconds of sound of one device that were cut, from its first block on."""
    dropped_total: float
    """The same, of all devices together."""
    invented_total: float
    """Seconds left empty between sounds that followed each other, of all devices together."""
    gaps: int
    """Places at which sound was cut or left empty, of all devices together."""
    steps: int
    """Silent losses that were found where there was none."""


class _Shown(NamedTuple):
    worst: float
    dropped: float
    invented: float
    gaps: int
    steps: int


def measure(devices: int, seconds: float, seed: int) -> ClockRow:
    """Place the sound of simulated devices and say how far off it was.

    Drift is uniform in -300 to 300 ppm, jitter in 0 to 5 ms; block lengths are drawn by `BLOCKS`.
    The sound is silence, of which only the place is computed.

    Args:
        devices: How many, one after the other.
        seconds: Of sound of each, at least `SETTLE`.
        seed: Of all that is random.
    """
    shown = [_shown(device, seconds) for device in drawn(devices, seed)]
    worst, dropped, invented, gaps, steps = zip(*shown, strict=True)
    return ClockRow(
        devices=devices,
        seconds=seconds,
        worst_error=max(worst),
        dropped_max=max(dropped),
        dropped_total=sum(dropped),
        invented_total=sum(invented),
        gaps=sum(gaps),
        steps=sum(steps),
    )


def drawn(devices: int, seed: int) -> Iterator[Device]:
    """Yield random devices whose sound is silence; see `measure`."""
    random = np.random.default_rng(seed)
    for _ in range(devices):
        yield Device(
            random.uniform(-MAX_PPM, MAX_PPM),
            block=float(random.choice([*BLOCKS], p=[*BLOCKS.values()])),
            jitter=MAX_JITTER * (1 - random.random()),
            seed=int(random.integers(2**32)),
            stretch=Silence,
        )


def _shown(device: Device, seconds: float) -> _Shown:
    worst = invented = 0.0
    end: int | None = None
    settled = 1.0 + TRANSPORT + SETTLE
    for _ in range(device.blocks(seconds)):
        start, sound, placed = device.block()
        if not len(sound):
            continue
        if end is not None:
            invented += (start - end) / SAMPLE_RATE
        end = start + len(sound)
        if placed.true >= settled:
            worst = max(worst, abs(placed.end - placed.true))
    placement = device.placement
    dropped = placement.dropped - invented
    return _Shown(worst, dropped, invented, placement.gaps, placement.fit.steps)
