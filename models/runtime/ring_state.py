"""One modality of many sessions: fixed tensors, one row for each, and a ring of hidden states.

Knows a branch of the model. Does not know whose rows they are, nor the other modalities.

Hidden states lie in a ring of which attention reads the places that count, so nothing is copied or
moved at a hop.

Shapes: S seats, B of them in a step, T ticks, P places in a ring, V of them visible, H units.
"""

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from ..nn.attention import Memory, Pooled
from ..nn.branch import Branch, BranchState
from ..nn.encoder import EncoderState, Ticks, compact


class RingState:
    """One modality of every session.

    Args:
        branch: Of the model.
        seats: Sessions, S.
        room: Most valid ticks of one step.
    """

    def __init__(self, branch: Branch, seats: int, room: int) -> None:
        self.branch = branch
        self.room = room
        self.places = branch.memory + room
        self._fresh = branch.encoder.initial_state(1)
        state = branch.encoder.initial_state(seats)
        self.h, self.c, self.level = (part.clone() for part in state)
        self.hidden = torch.zeros(seats, self.places, branch.encoder.size)
        self.energy = torch.zeros(seats, self.places)
        self.time = torch.zeros(seats, self.places, dtype=torch.int64)
        self.ready = torch.zeros_like(self.time)
        self.written = torch.zeros(seats, dtype=torch.int64)
        """Valid ticks so far; number k of them lies at place k modulo P."""

    def reset(self, slots: Tensor) -> None:
        """Let sessions begin afresh."""
        for mine, fresh in zip((self.h, self.c, self.level), self._fresh, strict=True):
            mine[slots] = fresh
        self.written[slots] = 0

    def encode(self, slots: Tensor, ticks: Ticks) -> Tensor:
        """Advance sessions by new ticks; return how many were valid, (B,).

        Raises:
            ValueError: If there are more than `room`.
        """
        ticks = compact(ticks)
        if ticks.mask.shape[1] > self.room:
            raise ValueError(
                f"{ticks.mask.shape[1]} valid ticks in one step: there is room for {self.room}"
            )
        before = EncoderState(self.h[slots], self.c[slots], self.level[slots])
        h_BTH, after = self.branch.encoder.step(ticks, before)
        for mine, new in zip((self.h, self.c, self.level), after, strict=True):
            mine[slots] = new
        self._write(slots, h_BTH, self.branch.attention.energy(h_BTH), ticks)
        return ticks.mask.sum(dim=1)

    def state(self, slots: Tensor) -> BranchState:
        """Return the state of sessions as a value, as `Branch.step` takes it."""
        written, size = self.written[slots].unsqueeze(1), self.branch.memory
        number = written - size + torch.arange(size)
        places = number.remainder(self.places).add_(slots.unsqueeze(1) * self.places)
        flat = (
            part.flatten(0, 1)[places] for part in (self.hidden, self.energy, self.time, self.ready)
        )
        hidden, energy, time, ready = flat
        memory = Memory(hidden, energy, number >= 0, time, ready)
        return BranchState(EncoderState(self.h[slots], self.c[slots], self.level[slots]), memory)

    def follow(self, slots: Tensor, ticks: Ticks, after: BranchState) -> None:
        """Take over what a step has made of `state` with these ticks."""
        for mine, new in zip((self.h, self.c, self.level), after.encoder, strict=True):
            mine[slots] = new
        ticks = compact(ticks)
        counts = ticks.mask.sum(dim=1, keepdim=True)
        # The newest states stand at the end of the memory, right-justified.
        place = (self.branch.memory - counts + torch.arange(ticks.mask.shape[1])).clamp(
            max=self.branch.memory - 1
        )
        index = place.unsqueeze(-1).expand(-1, -1, after.memory.hidden.shape[-1])
        hidden, energy = after.memory.hidden.gather(1, index), after.memory.energy.gather(1, place)
        self._write(slots, hidden, energy, ticks)

    def _write(self, slots: Tensor, h_BTH: Tensor, energy_BT: Tensor, ticks: Ticks) -> None:
        places = (self.written[slots].unsqueeze(1) + torch.arange(ticks.mask.shape[1])).remainder_(
            self.places
        )
        places = (places + slots.unsqueeze(1) * self.places)[ticks.mask]
        hidden = h_BTH[ticks.mask]
        self.hidden.view(-1, hidden.shape[1]).index_copy_(0, places, hidden)
        self.energy.view(-1).index_copy_(0, places, energy_BT[ticks.mask])
        self.time.view(-1).index_copy_(0, places, ticks.time[ticks.mask])
        self.ready.view(-1).index_copy_(0, places, ticks.ready[ticks.mask])
        self.written[slots] += ticks.mask.sum(dim=1)

    def pool(self, slots: Tensor, now_B1: Tensor, new_B: Tensor) -> Pooled:
        """Pool each session's window; visible are `Branch.memory` states before the new ones."""
        written = self.written[slots].unsqueeze(1)
        visible = self.branch.memory + int(new_B.max())
        number = written - visible + torch.arange(visible)
        known = (number >= 0) & (number >= written - self.branch.memory - new_B.unsqueeze(1))
        places = number.remainder(self.places).add_(slots.unsqueeze(1) * self.places)
        energy, time, ready = (
            part.view(-1).index_select(0, places.view(-1)).view_as(places)
            for part in (self.energy, self.time, self.ready)
        )
        ring = Memory(self.hidden, energy, known, time, ready)
        weight, inside = self.branch.attention.weigh(ring, now_B1, self.branch.window)
        counts, there = inside[:, 0].sum(dim=1), inside[:, 0]
        context = embedding_bag(
            places[there],
            self.hidden.view(-1, self.hidden.shape[2]),
            counts.cumsum(0) - counts,
            mode="sum",
            per_sample_weights=weight[:, 0][there],
        )
        shares = self.branch.attention.shares(weight)
        pooled = Pooled(context.unsqueeze(1), (counts > 0).unsqueeze(1), shares, time)
        return self.branch.projected(pooled)

    def rows(self) -> dict[str, Tensor]:
        """Return all that is remembered, by name, each with the seats first."""
        names = ("h", "c", "level", "hidden", "energy", "time", "ready", "written")
        return {name: getattr(self, name) for name in names}
