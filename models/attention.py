"""Temporal attention (TAM) over the hidden states of the last `window` seconds.

Knows hidden states and their times. Does not know where they come from.

Shapes: B sessions, N hops, T new ticks, R remembered ticks, S = R + T, H hidden units.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .encoder import Ticks


class Memory(NamedTuple):
    """The last R valid hidden states of each session, oldest first, right-justified.

    Only valid ticks enter, so a silent modality leaves its memory as it was; what has become too
    old is left out by its time, not by its place.
    """

    hidden: Tensor
    """(B, R, H) float32."""
    energy: Tensor
    """(B, R) float32, the attention energy of each state: it depends on the state alone, so it is
    computed once."""
    mask: Tensor
    """(B, R) bool."""
    time: Tensor
    """(B, R) int64, tick in which it happened."""
    ready: Tensor
    """(B, R) int64, tick from which it is known."""


class Pooled(NamedTuple):
    """One modality at each hop."""

    context: Tensor
    """(B, N, H) float32; zeros where nothing was in the window."""
    present: Tensor
    """(B, N) bool: at least one valid tick was in the window."""
    weight: Tensor
    """(B, N, S) float32, sums to 1 where present, else 0."""
    time: Tensor
    """(B, S) int64, the ticks that the weights belong to."""


class TemporalAttention(nn.Module):
    """Masked softmax attention over time.

    e_t = v^T tanh(W h_t + b);  w_t = exp(e_t) / sum_u exp(e_u) over the valid ticks u with
    now - window <= time_u < now and ready_u <= now;  c = sum_t w_t h_t
    (Sun and Wang 2024 weight the time steps of a recurrent network; the additive softmax form is
    variant c of the method's section 1.7.)

    Args:
        hidden: Units of the encoder, H.
    """

    def __init__(self, *, hidden: int) -> None:
        super().__init__()
        self.project = nn.Linear(hidden, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)

    def initial_memory(self, batch: int, size: int) -> Memory:
        """Return an empty memory of `size` states for `batch` sessions."""
        weight = self.project.weight
        integers = torch.zeros(batch, size, dtype=torch.int64, device=weight.device)
        return Memory(
            weight.new_zeros(batch, size, weight.shape[1]),
            weight.new_zeros(batch, size),
            integers.bool(),
            integers,
            integers.clone(),
        )

    def extend(self, memory: Memory, h_BTH: Tensor, ticks: Ticks) -> Memory:
        """Append new hidden states; the result holds R + T states and nothing is forgotten yet."""
        energy = self.score(torch.tanh(self.project(h_BTH))).squeeze(-1)
        energy = energy.masked_fill(~ticks.mask, 0.0)
        return Memory(
            torch.cat([memory.hidden, h_BTH], dim=1),
            torch.cat([memory.energy, energy], dim=1),
            torch.cat([memory.mask, ticks.mask], dim=1),
            torch.cat([memory.time, ticks.time], dim=1),
            torch.cat([memory.ready, ticks.ready], dim=1),
        )

    def pool(self, memory: Memory, now_BN: Tensor, window: int) -> Pooled:
        """Pool the states that lie in the window of each hop and were known by then.

        Args:
            memory: As `extend` returns it.
            now_BN: (B, N) int64, the tick at which each hop ends.
            window: Ticks that a window covers.
        """
        now = now_BN.unsqueeze(-1)
        time, ready = memory.time.unsqueeze(1), memory.ready.unsqueeze(1)
        inside = memory.mask.unsqueeze(1) & (time < now) & (time >= now - window) & (ready <= now)
        present = inside.any(dim=-1)
        # A row with nothing inside would be softmax of -inf only, which is NaN: give it a finite
        # row and clear it afterwards.
        energy = memory.energy.unsqueeze(1).masked_fill(~inside, float("-inf"))
        energy = energy.masked_fill(~present.unsqueeze(-1), 0.0)
        weight = torch.softmax(energy, dim=-1).masked_fill(~inside, 0.0)
        return Pooled(weight @ memory.hidden, present, weight, memory.time)


def forget(memory: Memory, size: int) -> Memory:
    """Keep the last `size` valid states of each row, right-justified, in their order.

    A row that gained nothing keeps its bits.
    """
    order = torch.argsort(memory.mask.to(torch.uint8), dim=1, stable=True)[:, -size:]
    index = order.unsqueeze(-1).expand(-1, -1, memory.hidden.shape[-1])
    return Memory(
        memory.hidden.gather(1, index),
        memory.energy.gather(1, order),
        memory.mask.gather(1, order),
        memory.time.gather(1, order),
        memory.ready.gather(1, order),
    )
