"""One modality of many sessions: fixed tensors, one row for each, and a ring of hidden states.

Knows a branch of the model. Knows neither the sessions behind the rows nor the other modalities.

Hidden states lie in a ring of which attention reads the places that count, so nothing is copied or
moved at a hop. Behind the states that attention may see, the ring has room for the ticks of one
step; a step that brings more lets it grow, up to a stated maximum.

Shapes: S sessions, B of them in a step, T ticks, P places in a ring, V of them visible, H units.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from ..nn.attention import Memory, Pooled, Turn
from ..nn.branch import Branch, BranchState
from ..nn.encoder import EncoderState, Ticks, compact

Rows = Tensor | slice
"""The sessions of a step, (B,) int64; a slice of length 1 for one alone, which copies nothing."""

State = dict[str, npt.NDArray[np.generic]]

ENCODER = ("h", "c", "level")
RINGS = ("hidden", "energy", "time", "ready")


class RingState:
    """One modality of every session.

    Args:
        branch: Of the model.
        slots: Sessions that have room, S.
        room: Valid ticks of one step that there is room for at first.
        most: Valid ticks of one step that there can be room for.
    """

    def __init__(self, branch: Branch, slots: int, *, room: int, most: int) -> None:
        self.branch = branch
        self.room = self._first_room = room
        self._most = most
        self._fresh = branch.encoder.initial_state(1)
        state = branch.encoder.initial_state(slots)
        self.h, self.c, self.level = (part.clone() for part in state)
        self.hidden = torch.zeros(slots, self.places, branch.encoder.size)
        self.energy = torch.zeros(slots, self.places)
        self.time = torch.zeros(slots, self.places, dtype=torch.int64)
        self.ready = torch.zeros_like(self.time)
        self.written = torch.zeros(slots, dtype=torch.int64)
        """Valid ticks so far; number k of them lies at place k modulo P."""

    @property
    def places(self) -> int:
        """Length of the ring, P."""
        return self.branch.memory + self.room

    @property
    def progress(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What a step changes beside the places of the rings that it fills."""
        return self.h, self.c, self.level, self.written

    @torch.inference_mode()  # a ring that has grown was made in it
    def clear(self, slot: int) -> None:
        """Empty the rings of a slot: a number that is not finite counts even behind a mask."""
        self.hidden[slot] = 0.0
        self.energy[slot] = 0.0

    def reset(self, rows: Rows) -> None:
        """Empty the state of sessions."""
        for mine, fresh in zip((self.h, self.c, self.level), self._fresh, strict=True):
            mine[rows] = fresh
        self.written[rows] = 0

    def encode(self, rows: Rows, ticks: Ticks) -> list[int]:
        """Advance sessions by new ticks; return how many of each were valid.

        Raises:
            ValueError: If there are more than there can be room for.
        """
        ticks = compact(ticks)
        self._make_room(ticks.mask.shape[1])
        h_BTH, after = self.branch.encoder.step(ticks, self._encoder(rows))
        self._write(rows, h_BTH, self.branch.attention.energy(h_BTH), ticks)
        self._set_encoder(rows, after)
        counts: list[int] = ticks.mask.sum(dim=1).tolist()
        return counts

    def pool(self, rows: Rows, now_B1: Tensor, new: Sequence[int], turn: Turn | None) -> Pooled:
        """Pool each session's window; visible are `Branch.memory` states before the new ones."""
        attention, window = self.branch.attention, self.branch.window
        if isinstance(rows, slice):
            memory = self._newest(rows.start, self.branch.memory + new[0])
            return self.branch.projected(attention.pool(memory, now_B1, window, turn))
        written = self.written[rows].unsqueeze(1)
        visible = self.branch.memory + max(new)
        number = written - visible + torch.arange(visible)
        since = written - self.branch.memory - torch.tensor(new).unsqueeze(1)
        known = (number >= 0) & (number >= since)
        places = self._places(rows, number)
        energy, time, ready = (
            part.view(-1).index_select(0, places.view(-1)).view_as(places)
            for part in (self.energy, self.time, self.ready)
        )
        ring = Memory(self.hidden, energy, known, time, ready)
        weight, inside = attention.weigh(ring, now_B1, window, turn)
        counts, there = inside[:, 0].sum(dim=1), inside[:, 0]
        context = embedding_bag(
            places[there],
            self.hidden.view(-1, self.hidden.shape[2]),
            counts.cumsum(0) - counts,
            mode="sum",
            per_sample_weights=weight[:, 0][there],
        )
        shares = attention.shares(weight)
        pooled = Pooled(context.unsqueeze(1), (counts > 0).unsqueeze(1), shares, time)
        return self.branch.projected(pooled)

    def value(self, slots: Tensor) -> BranchState:
        """Return the state of sessions as a value, as `Branch.step` takes it."""
        written, size = self.written[slots].unsqueeze(1), self.branch.memory
        number = written - size + torch.arange(size)
        places = self._places(slots, number)
        hidden, energy, time, ready = (
            part.flatten(0, 1)[places] for part in (self.hidden, self.energy, self.time, self.ready)
        )
        return BranchState(self._encoder(slots), Memory(hidden, energy, number >= 0, time, ready))

    def assign(self, slots: Tensor, ticks: Ticks, after: BranchState) -> None:
        """Take over what a step has made of `value` with these ticks."""
        ticks = compact(ticks)
        self._make_room(ticks.mask.shape[1])
        counts = ticks.mask.sum(dim=1, keepdim=True)
        # The newest states stand at the end of the memory, right-justified.
        newest = self.branch.memory - 1
        place = (newest + 1 - counts + torch.arange(ticks.mask.shape[1])).clamp(0, newest)
        index = place.unsqueeze(-1).expand(-1, -1, after.memory.hidden.shape[-1])
        hidden, energy = after.memory.hidden.gather(1, index), after.memory.energy.gather(1, place)
        self._write(slots, hidden, energy, ticks)
        self._set_encoder(slots, after.encoder)

    def read(self, slot: int, unfinished: int = 0) -> State:
        """Return a copy of a session's state by name.

        Args:
            slot: Of the session.
            unfinished: Newest valid ticks that may be taken back.
        """
        found = {name: getattr(self, name)[slot].numpy().copy() for name in (*ENCODER, "written")}
        room = max(self._first_room, unfinished)
        if room > self._first_room:
            found["room"] = np.array(room)
        places = self.branch.memory + room
        written = int(self.written[slot])
        number = np.arange(written - min(places, self.places), written)
        for name in RINGS:
            ring = getattr(self, name)[slot].numpy()
            found[name] = np.zeros((places, *ring.shape[1:]), ring.dtype)
            found[name][number % places] = ring[number % self.places]
        return found

    def check(self, state: Mapping[str, npt.NDArray[np.generic]]) -> list[str]:
        """Return the names of what does not fit into a row, or is missing or left over."""
        room = int(state.get("room", np.array(self._first_room)))
        places = self.branch.memory + room
        wanted: dict[str, tuple[tuple[int, ...], str]] = {}
        for name in (*ENCODER, *RINGS, "written"):
            row = getattr(self, name)[0].numpy()
            shape = (places, *row.shape[1:]) if name in RINGS else row.shape
            wanted[name] = (shape, row.dtype.str)
        given = {k: (part.shape, part.dtype.str) for k, part in state.items() if k != "room"}
        wrong = {k for k in wanted | given if wanted.get(k) != given.get(k)}
        return sorted(wrong | ({"room"} if not 0 <= room <= self._most else set()))

    def write(self, slot: int, state: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Set a row to what `read` returned and `check` found no fault with."""
        for name in (*ENCODER, "written"):
            getattr(self, name)[slot] = torch.from_numpy(np.array(state[name]))
        places = state["energy"].shape[0]
        self._make_room(places - self.branch.memory)
        written = int(self.written[slot])
        number = np.arange(written - places, written)
        for name in RINGS:
            ring = getattr(self, name)[slot].numpy()
            ring[number % self.places] = state[name][number % places]

    def _encoder(self, rows: Rows) -> EncoderState:
        return EncoderState(self.h[rows], self.c[rows], self.level[rows])

    def _set_encoder(self, rows: Rows, after: EncoderState) -> None:
        for mine, new in zip((self.h, self.c, self.level), after, strict=True):
            mine[rows] = new

    def _rings(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.hidden, self.energy, self.time, self.ready

    def _places(self, slots: Tensor, number: Tensor) -> Tensor:
        """Return where states of these numbers lie, counted over all sessions' rings."""
        return number.remainder(self.places).add_(slots.unsqueeze(1) * self.places)

    def _write(self, rows: Rows, h_BTH: Tensor, energy_BT: Tensor, ticks: Ticks) -> None:
        new = (h_BTH, energy_BT, ticks.time, ticks.ready)
        if isinstance(rows, slice):
            self._append(rows.start, new)
            return
        number = self.written[rows].unsqueeze(1) + torch.arange(ticks.mask.shape[1])
        places = self._places(rows, number)[ticks.mask]
        for ring, part in zip(self._rings(), new, strict=True):
            ring.flatten(0, 1).index_copy_(0, places, part[ticks.mask])
        self.written[rows] += ticks.mask.sum(dim=1)

    def _append(self, slot: int, new: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        """Write the valid ticks of one session, (1, T, ...), all of which are valid."""
        written, count = int(self.written[slot]), new[0].shape[1]
        at = written % self.places
        head = min(count, self.places - at)
        for ring, part in zip(self._rings(), new, strict=True):
            # Through numpy, whose small assignments cost a tenth of torch's.
            place, rows = ring.numpy()[slot], part.numpy()[0]
            place[at : at + head] = rows[:head]
            if head < count:
                place[: count - head] = rows[head:]
        self.written[slot] = written + count

    def _newest(self, slot: int, most: int) -> Memory:
        """Return the newest states of one session, without copies unless the ring turns there."""
        written = int(self.written[slot])
        count = min(written, most)
        at = (written - count) % self.places
        head = min(count, self.places - at)
        hidden, energy, time, ready = (
            ring[slot : slot + 1, at : at + head]
            if head == count
            else torch.cat((ring[slot, at:], ring[slot, : count - head])).unsqueeze(0)
            for ring in self._rings()
        )
        return Memory(hidden, energy, torch.ones_like(time, dtype=torch.bool), time, ready)

    def _make_room(self, room: int) -> None:
        if room <= self.room:
            return
        if room > self._most:
            raise ValueError(f"{room} valid ticks in one step: at most {self._most} are taken")
        old, self.room = self.places, room
        number = self.written.unsqueeze(1) - old + torch.arange(old)
        rows = torch.arange(len(number)).unsqueeze(1)
        for name in RINGS:
            ring = getattr(self, name)
            grown = ring.new_zeros(len(number), self.places, *ring.shape[2:])
            grown[rows, number.remainder(self.places)] = ring[rows, number.remainder(old)]
            setattr(self, name, grown)
