"""Temporal attention (TAM) over the hidden states of the last `window` seconds.

Knows hidden states and their times. Does not know where they come from.

Shapes: B sessions, N hops, T new ticks, R remembered ticks, S = R + T, H hidden units.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, tanhshrink

from .encoder import Ticks

Tam = Literal["softmax", "softmax_gate", "mean", "gate_sum", "gate_last", "gate_first", "none"]
"""Forms of temporal attention; `TemporalAttention` has their equations."""


class Memory(NamedTuple):
    """The last R valid hidden states of each session, oldest first, right-justified.

    Only valid ticks enter, so a silent modality leaves its memory as it was; what has become too
    old is left out by its time, not by its place.
    """

    hidden: Tensor
    """(B, R, H) float32."""
    energy: Tensor
    """(B, R) float32, what attention thinks of each state (energy or gate): it depends on the state
    alone, so it is computed once, when the state enters."""
    mask: Tensor
    """(B, R) bool."""
    time: Tensor
    """(B, R) int64, tick in which it happened."""
    ready: Tensor
    """(B, R) int64, tick from which it is known."""


class Turn(NamedTuple):
    """What a person is saying at each hop, so that attention is not on what was said before.

    A turn that is young is blended with what stood before it: the context is share times that of
    the turn plus (1 - share) times that of the rest of the window. Where either holds nothing, the
    other has it all.
    """

    since: Tensor
    """(B, N) int64, tick at which the turn began."""
    share: Tensor
    """(B, N) float32 in [0, 1], of the turn in the context."""


class Pooled(NamedTuple):
    """One modality at each hop."""

    context: Tensor
    """(B, N, H) float32; zeros where nothing was in the window."""
    present: Tensor
    """(B, N) bool: at least one valid tick was in the window."""
    weight: Tensor
    """(B, N, S) float32, share of each state in the context, never negative; sums to 1 where
    present, else 0. A gate may be negative: its share is its size over the sum of sizes."""
    time: Tensor
    """(B, S) int64, the ticks that the weights belong to."""


class TemporalAttention(nn.Module):
    """Temporal attention (TAM) in the forms of the method's sections 1.2 and 1.7.

    Each form gives every valid state u with now - window <= time_u < now and ready_u <= now a
    weight w_u that depends on the states inside the window alone; the context is
    c = sum_u w_u h_u. With the energy e_t = v^T tanh(W h_t + b), n states inside, and the gate of
    the authors' release g_t = tanh(w_a^T h_t + b_a) tanhshrink(w_b^T h_t + b_b), where
    tanhshrink(z) = z - tanh(z):

    - `softmax`: w_t = exp(e_t) / sum_u exp(e_u). Additive attention, 1.7 c; what ships.
    - `softmax_gate`: w_t = exp(g_t) / sum_u exp(g_u), 1.7 d.
    - `mean`: w_t = 1 / n. Nothing of where to look can be learned by heart from few voices.
    - `gate_sum`: w_t = g_t / n, 1.7 b: weights over time, as the paper's abstract describes.
    - `gate_last`: w = g at the newest state inside, else 0, 1.7 a. The release's audio and vision
      (Sun and Wang 2024, 1.2), but the last VALID state and with gradients into the encoder.
    - `gate_first`: w = g at the oldest state inside, else 0. The release's text, whose oldest
      state is [CLS]; on a stream of words it is the oldest word of the window.
    - `none`: w = 1 at the newest state inside: the last hidden state, as in Self-MM, 1.7 f.

    "Newest" and "oldest" go by the order in which states entered. g is about z^4 / 3 for small z,
    so a gate starts near 0 and starves what lies behind it; `residual` turns g into 1 + g, i.e.
    h_hat = (1 + g) h, for `gate_sum`, `gate_last` and `gate_first`.

    Args:
        hidden: Units of the encoder, H.
        kind: The form.
        residual: Use 1 + g for g.

    Raises:
        ValueError: If `residual` is asked of a form that it would not change.
    """

    like: Tensor

    def __init__(self, *, hidden: int, kind: Tam = "softmax", residual: bool = False) -> None:
        super().__init__()
        if residual and kind not in ("gate_sum", "gate_last", "gate_first"):
            raise ValueError(
                f"residual = true has no meaning with tam = {kind!r}: "
                "set residual = false, or tam to gate_sum, gate_last or gate_first"
            )
        self.hidden, self.kind, self.residual = hidden, kind, residual
        if kind == "softmax":
            self.project = nn.Linear(hidden, hidden)
            self.score = nn.Linear(hidden, 1, bias=False)
        elif kind not in ("mean", "none"):
            self.alpha = nn.Linear(hidden, 1)
            self.beta = nn.Linear(hidden, 1)
        # `mean` and `none` have no parameter that shows the device of the memory.
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def initial_memory(self, batch: int, size: int) -> Memory:
        """Return an empty memory of `size` states for `batch` sessions."""
        integers = torch.zeros(batch, size, dtype=torch.int64, device=self.like.device)
        return Memory(
            self.like.new_zeros(batch, size, self.hidden),
            self.like.new_zeros(batch, size),
            integers.bool(),
            integers,
            integers.clone(),
        )

    def extend(self, memory: Memory, h_BTH: Tensor, ticks: Ticks) -> Memory:
        """Append new hidden states; the result holds R + T states and nothing is forgotten yet."""
        if not ticks.mask.shape[1]:
            return memory
        energy = self.energy(h_BTH).masked_fill(~ticks.mask, 0.0)
        return Memory(
            torch.cat([memory.hidden, h_BTH], dim=1),
            torch.cat([memory.energy, energy], dim=1),
            torch.cat([memory.mask, ticks.mask], dim=1),
            torch.cat([memory.time, ticks.time], dim=1),
            torch.cat([memory.ready, ticks.ready], dim=1),
        )

    def pool(self, memory: Memory, now_BN: Tensor, window: int, turn: Turn | None = None) -> Pooled:
        """Pool the states that lie in the window of each hop and were known by then.

        Args:
            memory: As `extend` returns it.
            now_BN: (B, N) int64, the tick at which each hop ends.
            window: Ticks that a window covers.
            turn: What is being said; None: all of the window.
        """
        weight, inside = self.weigh(memory, now_BN, window, turn)
        context = weight @ memory.hidden
        return Pooled(context, inside.any(dim=-1), self.shares(weight), memory.time)

    def weigh(
        self, memory: Memory, now_BN: Tensor, window: int, turn: Turn | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return each state's factor in the context, and whether it counts, both (B, N, S).

        What the states themselves are is not looked at.
        """
        now = now_BN.unsqueeze(-1)
        time, ready = memory.time.unsqueeze(1), memory.ready.unsqueeze(1)
        inside = memory.mask.unsqueeze(1) & (time < now) & (time >= now - window) & (ready <= now)
        energy = memory.energy.unsqueeze(1)
        if turn is None:
            return self.factors(energy, inside), inside
        is_new = time >= turn.since.unsqueeze(-1)
        return self.blended(energy, inside, is_new, turn.share.unsqueeze(-1)), inside

    def blended(self, energy: Tensor, inside: Tensor, is_new: Tensor, share: Tensor) -> Tensor:
        """Return each state's factor, (..., S), where a turn is blended with what stood before.

        Args:
            energy: (..., S).
            inside: (..., S) bool, whether a state counts.
            is_new: (..., S) bool, whether it is of the turn.
            share: (..., 1), of the turn.
        """
        if self.kind.startswith("softmax"):
            return _reshared(masked_softmax(energy, inside), is_new, share)
        new, old = inside & is_new, inside & ~is_new
        share = torch.where(old.any(dim=-1, keepdim=True), share, 1.0)
        share = torch.where(new.any(dim=-1, keepdim=True), share, 0.0)
        return share * self.factors(energy, new) + (1 - share) * self.factors(energy, old)

    def shares(self, weight: Tensor) -> Tensor:
        """Return factors as shares, never negative; see `Pooled.weight`."""
        if self.kind.startswith("gate"):
            return normalize(weight.detach().abs(), p=1.0, dim=-1)
        return weight

    def energy(self, h_BTH: Tensor) -> Tensor:
        """Return (B, T): what the form needs to know of each state alone."""
        if self.kind == "softmax":
            energy: Tensor = self.score(torch.tanh(self.project(h_BTH))).squeeze(-1)
            return energy
        if self.kind in ("mean", "none"):
            return h_BTH.new_ones(h_BTH.shape[:2])
        gate = torch.tanh(self.alpha(h_BTH)) * tanhshrink(self.beta(h_BTH))
        return gate.squeeze(-1) + float(self.residual)

    def factors(self, energy: Tensor, inside: Tensor) -> Tensor:
        """Return the factor of each state in the context, (..., S), 0 where it is not inside."""
        if self.kind.startswith("softmax"):
            return masked_softmax(energy, inside)
        if self.kind in ("mean", "gate_sum"):
            count = inside.sum(dim=-1, keepdim=True).clamp(min=1)
            return energy.masked_fill(~inside, 0.0) / count
        return energy.masked_fill(~_end(inside, first=self.kind == "gate_first"), 0.0)


def masked_softmax(energy: Tensor, inside: Tensor, dim: int = -1) -> Tensor:
    """Return the softmax over what is inside, 0 elsewhere, and all 0 where nothing is."""
    # Not -inf: a row of nothing else would be NaN, in its gradient too.
    energy = torch.where(inside, energy, torch.finfo(energy.dtype).min)
    return torch.where(inside, torch.softmax(energy, dim=dim), 0.0)


def _reshared(weight: Tensor, is_new: Tensor, share: Tensor) -> Tensor:
    """Return weights that sum to 1 such that those of the turn sum to its share.

    That is the blend of two softmaxes in half as many operators.
    """
    new = torch.where(is_new, weight, 0.0).sum(dim=-1, keepdim=True)
    old = torch.where(is_new, 0.0, weight).sum(dim=-1, keepdim=True)
    share = torch.where(new > 0, torch.where(old > 0, share, 1.0), 0.0)
    tiny = torch.finfo(weight.dtype).tiny
    new_scale, old_scale = share / new.clamp(min=tiny), (1 - share) / old.clamp(min=tiny)
    return weight * torch.where(is_new, new_scale, old_scale)


def _end(inside: Tensor, *, first: bool) -> Tensor:
    """Return True at the first or last place of each row that is True."""
    if first:
        return inside & (inside.cumsum(dim=-1) == 1)
    return _end(inside.flip(-1), first=True).flip(-1)


def forget(memory: Memory, size: int) -> Memory:
    """Keep the last `size` valid states of each row, right-justified, in their order.

    A row that gained nothing keeps its bits.
    """
    mask = memory.mask
    if bool((mask[:, 1:] >= mask[:, :-1]).all()):
        # The valid ones stand at the right already: nothing new came, or all of it is valid.
        return Memory(*(part[:, -size:] for part in memory))
    order = torch.argsort(memory.mask.to(torch.uint8), dim=1, stable=True)[:, -size:]
    index = order.unsqueeze(-1).expand(-1, -1, memory.hidden.shape[-1])
    return Memory(
        memory.hidden.gather(1, index),
        memory.energy.gather(1, order),
        memory.mask.gather(1, order),
        memory.time.gather(1, order),
        memory.ready.gather(1, order),
    )
