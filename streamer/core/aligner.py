"""Align samples: those of voice and face become hops of a fixed tick grid.

Knows event time only: neither the wall clock nor the order in which modalities arrive can change
a hop. Knows no model, no words, no devices.

A hop closes when the watermark passes its end. The watermark is the larger of
- the oldest of the modalities' newest times: all modalities have reached it, and
- the newest time of all less `lateness`: a modality further behind is not waited for.

Within one modality samples come in the order of their timestamps, one for each tick of voice and
one for each vision slot, when the slot is over; between modalities any order gives identical hops
in which none is behind by more than `lateness`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .sample import PERIOD, TICK_RATE, VISION_TICKS, Array, Block, Sample, tick_of

FURTHEST = 60.0
"""Seconds beyond the open hop after which a sample counts as lost: what a single stamp can make
wait, or close, is bounded by that. Sources keep below it; see `sources.time_line`."""


_FURTHEST = round(FURTHEST * TICK_RATE)


@dataclass(frozen=True, slots=True)
class Grid:
    """What one modality brought in one hop, on its own regular grid."""

    values: Array
    """(T, D) float32, T = hop / period; zeros where the mask is False."""
    mask: npt.NDArray[np.bool_]
    """(T,) True = valid."""
    time: npt.NDArray[np.int64]
    """(T,) first tick of each slot."""
    reason: str | None
    """Why the newest sample had nothing to measure; None if it had, or if none came."""
    seen: float | None
    """Timestamp of the newest sample, valid or not; None if none came."""


@dataclass(frozen=True, slots=True)
class Hop:
    """Everything that happened since the hop before and before `end`."""

    end: int
    """Tick at which it ends."""
    grids: Mapping[str, Grid]


class Held(NamedTuple):
    """A sample that waits for its hop to close: alone, or a row of a block."""

    item: Sample | Block
    row: int
    """Of the block; 0 for a sample."""

    @property
    def timestamp(self) -> float:
        """Seconds on the session clock."""
        return self.item.timestamp + self.row * PERIOD[self.item.modality] / TICK_RATE

    @property
    def values(self) -> Array | None:
        """Shape (D,), float32; None: there was nothing to measure."""
        return self.item.values[self.row] if isinstance(self.item, Block) else self.item.values

    @property
    def reason(self) -> str | None:
        """Why there are no values."""
        return None if isinstance(self.item, Block) else self.item.reason


class Aligner:
    """Collect samples into hops.

    Args:
        dims: Features per modality for each modality that was asked for, e.g. `{"audio": 44}`.
        hop: Ticks per hop; a multiple of 5, so that a vision frame lies in one hop.
        lateness: Seconds for which the slower modality is waited for.

    Raises:
        ValueError: If `hop` is not a positive multiple of 5.
    """

    def __init__(self, dims: Mapping[str, int], *, hop: int, lateness: float) -> None:
        self.hop = 0
        self.end = 0
        """End of the hop that closes next, in ticks."""
        self.late = dict.fromkeys(dims, 0)
        """Samples that were dropped: of hops that had closed, or further ahead than `FURTHEST`."""
        self._dims = dict(dims)
        self._lateness = lateness
        self.newest = dict.fromkeys(dims, -math.inf)
        """End of the newest slot of each modality that something came for, in seconds."""
        self.held: dict[str, dict[int, Held]] = {name: {} for name in dims}
        """What waits, by slot."""
        self.set_hop(hop)

    def set_hop(self, hop: int) -> None:
        """Give the hop that closes next, and those after it, another length.

        Raises:
            ValueError: If `hop` is not a positive multiple of 5.
        """
        if hop <= 0 or hop % VISION_TICKS:
            raise ValueError(f"hop of {hop} ticks: must be a positive multiple of {VISION_TICKS}")
        self.end += hop - self.hop
        self.hop = hop

    def push(self, sample: Sample) -> list[Hop]:
        """Take one sample; return the hops that it closes, oldest first.

        Raises:
            ValueError: If the modality was not asked for or the number of features is wrong.
        """
        name = sample.modality
        self._check(name, None if sample.values is None else len(sample.values))
        slot = tick_of(sample.timestamp) // PERIOD[name]
        if not self.end - self.hop <= slot * PERIOD[name] < self.end + _FURTHEST:
            self.late[name] += 1
            return []
        held = self.held[name].get(slot)
        if held is None or held.timestamp <= sample.timestamp:
            self.held[name][slot] = Held(sample, 0)
        return self._reached(name, slot)

    def push_block(self, block: Block) -> list[Hop]:
        """Take samples that follow each other, one for each slot; see `push`."""
        name = block.modality
        self._check(name, block.values.shape[1])
        first = tick_of(block.timestamp) // PERIOD[name]
        last = first + len(block.values) - 1
        late = min(max(-(-(self.end - self.hop) // PERIOD[name]) - first, 0), len(block.values))
        self.late[name] += late
        if late == len(block.values) or (last + 1) * PERIOD[name] > self.end + _FURTHEST:
            self.late[name] += len(block.values) - late
            return []
        rows = map(Held, repeat(block), range(late, len(block.values)))
        self.held[name].update(zip(range(first + late, last + 1), rows, strict=True))
        return self._reached(name, last)

    def advance(self, now: float) -> list[Hop]:
        """Close what ended before `now - lateness`, for times in which every modality is silent."""
        return self._closed(max(self._watermark(), now - self._lateness))

    def close(self, least: int = 0) -> list[Hop]:
        """Close every hop that holds something.

        The last one is unfinished: it ends with the 100 ms of its newest sample, because nothing
        more is known of what came after.

        Args:
            least: Tick that it reaches at least, for words that came after the last sample.
        """
        held = [(slot + 1) * PERIOD[name] for name, slots in self.held.items() for slot in slots]
        last = -(-max([*held, least]) // VISION_TICKS) * VISION_TICKS
        hops = self._closed(last / TICK_RATE)
        start = self.end - self.hop
        if start < last:
            hops.append(Hop(last, {name: self._grid(name, last - start) for name in self._dims}))
            self.end = last + self.hop
        return hops

    def _check(self, name: str, given: int | None) -> None:
        if name not in self._dims:
            raise ValueError(f"{name} sample: expected one of {', '.join(self._dims) or 'none'}")
        taken = self._dims[name]
        if given not in (None, taken):
            raise ValueError(f"{name} sample of {given} features: the model takes {taken}")

    def _reached(self, name: str, slot: int) -> list[Hop]:
        self.newest[name] = max(self.newest[name], (slot + 1) * PERIOD[name] / TICK_RATE)
        return self._closed(self._watermark())

    def _watermark(self) -> float:
        if not self.newest:
            return -math.inf
        return max(min(self.newest.values()), max(self.newest.values()) - self._lateness)

    def _closed(self, watermark: float) -> list[Hop]:
        hops = []
        while watermark != -math.inf and self.end <= tick_of(watermark):
            grids = {name: self._grid(name, self.hop) for name in self._dims}
            hops.append(Hop(self.end, grids))
            self.end += self.hop
        return hops

    def _grid(self, name: str, ticks: int) -> Grid:
        """Take what the next `ticks` ticks hold."""
        period, first = PERIOD[name], (self.end - self.hop) // PERIOD[name]
        size = ticks // period
        held = [self.held[name].pop(slot, None) for slot in range(first, first + size)]
        newest = next((one for one in reversed(held) if one is not None), None)
        values, mask = self._values(name, held)
        time = (first + np.arange(size, dtype=np.int64)) * period
        reason = None if newest is None else newest.reason
        return Grid(values, mask, time, reason, None if newest is None else newest.timestamp)

    def _values(
        self, name: str, held: Sequence[Held | None]
    ) -> tuple[Array, npt.NDArray[np.bool_]]:
        first, size = held[0], len(held)
        block = None if first is None else first.item
        if isinstance(block, Block) and all(one and one.item is block for one in held):
            # Rows that came together stay together: nothing is copied.
            start = first.row if first else 0
            return block.values[start : start + size], np.ones(size, np.bool_)
        values = np.zeros((size, self._dims[name]), np.float32)
        mask = np.zeros(size, np.bool_)
        for index, one in enumerate(held):
            found = None if one is None else one.values
            if found is not None:
                values[index], mask[index] = found, True
        return values, mask
