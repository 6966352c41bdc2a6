"""Unimodal encoder: every valid tick goes through the LSTM exactly once.

Knows tensors and masks. Does not know which modality it serves, nor what a window is.

Shapes: B sessions in a batch, T ticks, D features, L layers, H hidden units.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

EncoderKind = Literal["lstm", "identity"]
"""Forms of encoder; `Encoder` has their equations."""


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


PRIOR = 20.0
"""Ticks that the training set's level counts as at the start of a session."""


class EncoderState(NamedTuple):
    """What the LSTM remembers of each session."""

    h: Tensor
    """(B, L, H) float32; L is 0 for `identity`, and twice the layers for a bidirectional LSTM."""
    c: Tensor
    """(B, L, H) float32."""
    level: Tensor
    """(B, C + 1) float64: decayed sum of each centred feature, and the decayed count."""


def compact(ticks: Ticks) -> Ticks:
    """Move the valid ticks of each row to its front, keep their order, and clear the rest.

    Masked values are replaced, not multiplied: 0 * NaN would let a NaN through, in the result and
    in the gradients. The time axis is cut to the longest row, so its length may be 0.
    """
    if bool(ticks.mask.all()):
        return ticks
    longest = int(ticks.mask.sum(dim=1).max())
    order = torch.argsort((~ticks.mask).to(torch.uint8), dim=1, stable=True)[:, :longest]
    mask = ticks.mask.gather(1, order)
    index = order.unsqueeze(-1).expand(-1, -1, ticks.values.shape[-1])
    values = ticks.values.gather(1, index).masked_fill(~mask.unsqueeze(-1), 0.0)
    time = ticks.time.gather(1, order).masked_fill(~mask, 0)
    ready = ticks.ready.gather(1, order).masked_fill(~mask, 0)
    return Ticks(values, mask, time, ready)


class Encoder(nn.Module):
    """Stacked LSTM whose state is an explicit value.

    - `lstm`: h_t = LSTM(x_t, h_{t-1})  (TAM-ULAG release, section 1.2 of the method:
      unidirectional, so that a prefix of the input gives a prefix of the output).
    - `identity`: h_t = x_t, for token states that a transformer has already encoded: the release
      puts no recurrent network behind its text.

    Inputs are standardised with the mean and deviation of the training set, which the checkpoint
    holds.

    Args:
        dim: Features per tick, D.
        hidden: Hidden units per layer and direction; not used by `identity`.
        layers: Stacked layers, L; not used by `identity`.
        dropout: Probability of dropping an input feature and a unit between layers, in training.
        kind: The form.
        centred: Leading features, C, from which their running mean is taken first, so that
            loudness and channel of a microphone do not count. The mean begins with the training
            set's and forgets with a time constant of `horizon` valid ticks.
        horizon: See `centred`.
        bidirectional: Read whole sequences from both ends; a state is of no use then.
    """

    mean: Tensor
    deviation: Tensor
    level: Tensor
    """(C,) mean of the centred features in the training set."""
    lstm: nn.LSTM
    """Only there for `lstm`."""

    def __init__(
        self,
        *,
        dim: int,
        hidden: int,
        layers: int,
        dropout: float = 0.0,
        kind: EncoderKind = "lstm",
        centred: int = 0,
        horizon: int = 500,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))
        self.centred = centred
        self.horizon = horizon
        if centred:
            self.register_buffer("level", torch.zeros(centred))
        self.dropout = nn.Dropout(dropout)
        self.kind = kind
        self.size = dim
        """Values per hidden state, H: both directions count."""
        self._state = (0, dim)
        if kind == "lstm":
            between = dropout if layers > 1 else 0.0
            self.lstm = nn.LSTM(
                dim, hidden, layers, batch_first=True, dropout=between, bidirectional=bidirectional
            )
            directions = 2 if bidirectional else 1
            self.size, self._state = directions * hidden, (directions * layers, hidden)

    def initial_state(self, batch: int) -> EncoderState:
        """Return the state of `batch` sessions that have seen nothing."""
        level = torch.zeros(self.centred + 1, dtype=torch.float64, device=self.mean.device)
        if self.centred:
            level = PRIOR * torch.cat([self.level, self.level.new_ones(1)]).double()
        return EncoderState(
            self.mean.new_zeros(batch, *self._state),
            self.mean.new_zeros(batch, *self._state),
            level.expand(batch, -1).clone(),
        )

    def step(self, ticks: Ticks, state: EncoderState) -> tuple[Tensor, EncoderState]:
        """Advance each session by its valid ticks.

        Args:
            ticks: As `compact` returns them: valid ticks first, the rest cleared.
            state: From `initial_state` or the previous step; never changed in place.

        Returns:
            Hidden states of the top layer, (B, T, H), zeros where the mask is False; and the next
            state. A row without a valid tick keeps its state to the bit.
        """
        if ticks.mask.shape[1] == 0:
            return ticks.values.new_zeros(len(ticks.mask), 0, self.size), state
        x_BTD, state = self.standardise(ticks, state)
        if self.kind == "identity":
            return x_BTD.masked_fill(~ticks.mask.unsqueeze(-1), 0.0), state
        return self._recur(x_BTD, ticks.mask, state)

    def standardise(self, ticks: Ticks, state: EncoderState) -> tuple[Tensor, EncoderState]:
        """Return what the recurrent layers take, (B, T, D), and the state with its next level."""
        x_BTD = ticks.values - self.mean
        if self.centred:
            here, level = self._centred(ticks.values, state.level, ticks.mask)
            x_BTD[..., : self.centred] = here - self.mean[: self.centred]
            state = state._replace(level=level)
        # In place: with many sessions fresh memory costs more than the arithmetic.
        return self.dropout(x_BTD.div_(self.deviation)), state

    def centre(
        self, x_BTD: Tensor, level: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Subtract the running mean m_t = S_t / n_t, S_t = d S_{t-1} + x_t, n_t = d n_{t-1} + 1.

        In closed form S_t = d^t (S_0 + sum_i d^-i x_i), so a chunk needs no loop; float64 keeps
        any cut into chunks equal. Causal: the mean at t includes x_t and nothing later.
        """
        if not self.centred:
            return x_BTD, level
        if mask is None:
            mask = torch.ones(x_BTD.shape[:2], dtype=torch.bool, device=x_BTD.device)
        here, after = self._centred(x_BTD, level, mask)
        return torch.cat([here, x_BTD[..., self.centred :]], dim=-1), after

    def _centred(self, x_BTD: Tensor, level: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the centred features alone, (B, T, C), and the next level."""
        decay = 1 - 1 / self.horizon
        # A number as the base would be one of float32 in an exported graph.
        base = torch.tensor(decay, dtype=torch.float64)
        power = base ** torch.arange(1, mask.shape[1] + 1, dtype=torch.float64).unsqueeze(-1)
        here = x_BTD[..., : self.centred]
        # In place: this is the widest arithmetic of training, and fresh memory costs most of it.
        levels = torch.cat([here, torch.ones_like(here[..., :1])], dim=-1).double()
        levels = levels.masked_fill_(~mask.unsqueeze(-1), 0.0).div_(power).cumsum_(dim=1)
        levels = levels.add_(level.unsqueeze(1)).mul_(power)
        mean = levels[..., :-1] / levels[..., -1:]
        values = (here - mean).to(x_BTD.dtype)
        lengths = mask.sum(dim=1)
        last = (lengths - 1).clamp(min=0).view(-1, 1, 1).expand(-1, 1, levels.shape[-1])
        after = torch.where((lengths > 0).unsqueeze(-1), levels.gather(1, last)[:, 0], level)
        return values, after

    def _recur(
        self, x_BTD: Tensor, mask: Tensor, state: EncoderState
    ) -> tuple[Tensor, EncoderState]:
        start = (state.h.transpose(0, 1).contiguous(), state.c.transpose(0, 1).contiguous())
        if bool(mask.all()):
            h_BTH, (h, c) = self.lstm(x_BTD, start)
            return h_BTH, EncoderState(h.transpose(0, 1), c.transpose(0, 1), state.level)
        lengths = mask.sum(dim=1)
        packed = pack_padded_sequence(
            x_BTD, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False
        )
        out, (h, c) = self.lstm(packed, start)
        h_BTH, _ = pad_packed_sequence(out, batch_first=True, total_length=mask.shape[1])
        moved = (lengths > 0).view(-1, 1, 1)
        after = EncoderState(
            torch.where(moved, h.transpose(0, 1), state.h),
            torch.where(moved, c.transpose(0, 1), state.c),
            state.level,
        )
        return h_BTH.masked_fill(~mask.unsqueeze(-1), 0.0), after
