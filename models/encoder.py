"""Unimodal recurrent encoder: every valid tick goes through the LSTM exactly once.

Knows tensors and masks. Does not know which modality it serves, nor what a window is.

Shapes: B sessions in a batch, T ticks, D features, L layers, H hidden units.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class Ticks(NamedTuple):
    """What one modality brought: features with the times at which they happened and were known.

    For audio and vision `ready` is the end of the tick. A word is known later than it was spoken.
    """

    values: Tensor
    """(B, T, D) float32; ignored, NaN included, where `mask` is False."""
    mask: Tensor
    """(B, T) bool, True = valid."""
    time: Tensor
    """(B, T) int64, tick of 20 ms in which it happened."""
    ready: Tensor
    """(B, T) int64, first tick at whose start it is known."""


class EncoderState(NamedTuple):
    """What the LSTM remembers of each session."""

    h: Tensor
    """(B, L, H) float32."""
    c: Tensor
    """(B, L, H) float32."""


def compact(ticks: Ticks) -> Ticks:
    """Move the valid ticks of each row to its front, keep their order, and clear the rest.

    Masked values are replaced, not multiplied: 0 * NaN would let a NaN through, in the result and
    in the gradients. The time axis is cut to the longest row, so its length may be 0.
    """
    longest = int(ticks.mask.sum(dim=1).max()) if ticks.mask.numel() else 0
    order = torch.argsort((~ticks.mask).to(torch.uint8), dim=1, stable=True)[:, :longest]
    mask = ticks.mask.gather(1, order)
    index = order.unsqueeze(-1).expand(-1, -1, ticks.values.shape[-1])
    values = ticks.values.gather(1, index).masked_fill(~mask.unsqueeze(-1), 0.0)
    time = ticks.time.gather(1, order).masked_fill(~mask, 0)
    ready = ticks.ready.gather(1, order).masked_fill(~mask, 0)
    return Ticks(values, mask, time, ready)


class Encoder(nn.Module):
    """Stacked unidirectional LSTM whose state is an explicit value.

    h_t = LSTM(x_t, h_{t-1})  (TAM-ULAG release, section 1.2 of the method: unidirectional, so that
    a prefix of the input gives a prefix of the output). Inputs are standardised with the mean and
    deviation of the training set, which the checkpoint holds.

    Args:
        dim: Features per tick, D.
        hidden: Hidden units per layer, H.
        layers: Stacked layers, L.
        dropout: Probability of dropping an input feature and a unit between layers, in training.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, *, dim: int, hidden: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))
        self.dropout = nn.Dropout(dropout)
        between = dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(dim, hidden, layers, batch_first=True, dropout=between)

    def initial_state(self, batch: int) -> EncoderState:
        """Return the state of `batch` sessions that have seen nothing: zeros (B, L, H)."""
        shape = (batch, self.lstm.num_layers, self.lstm.hidden_size)
        return EncoderState(self.mean.new_zeros(shape), self.mean.new_zeros(shape))

    def step(self, ticks: Ticks, state: EncoderState) -> tuple[Tensor, EncoderState]:
        """Advance each session by its valid ticks.

        Args:
            ticks: As `compact` returns them: valid ticks first, the rest cleared.
            state: From `initial_state` or the previous step; never changed in place.

        Returns:
            Hidden states of the top layer, (B, T, H), zeros where the mask is False; and the next
            state. A row without a valid tick keeps its state to the bit.
        """
        lengths = ticks.mask.sum(dim=1)
        if ticks.mask.shape[1] == 0:
            return ticks.values.new_zeros(len(lengths), 0, self.lstm.hidden_size), state
        x_BTD = self.dropout((ticks.values - self.mean) / self.deviation)
        packed = pack_padded_sequence(
            x_BTD, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False
        )
        start = (state.h.transpose(0, 1).contiguous(), state.c.transpose(0, 1).contiguous())
        out, (h, c) = self.lstm(packed, start)
        h_BTH, _ = pad_packed_sequence(out, batch_first=True, total_length=ticks.mask.shape[1])
        moved = (lengths > 0).view(-1, 1, 1)
        after = EncoderState(
            torch.where(moved, h.transpose(0, 1), state.h),
            torch.where(moved, c.transpose(0, 1), state.c),
        )
        return h_BTH.masked_fill(~ticks.mask.unsqueeze(-1), 0.0), after
