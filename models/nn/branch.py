"""One modality: encoder, temporal attention and a regression head.

Knows the ticks of one modality and its state. Does not know the other modalities.

Shapes: B sessions, N hops, T ticks, as in `encoder` and `attention`.
"""

from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .attention import Memory, Pooled, TemporalAttention, Turn, forget
from .config import BranchConfig, ModelConfig
from .encoder import Encoder, EncoderState, Ticks, compact


class BranchState(NamedTuple):
    """What one modality remembers."""

    encoder: EncoderState
    memory: Memory


class Head(nn.Sequential):
    """A regression head whose representation F* can be had; `regressor` builds it.

    Args:
        layers: From the modality's or the fused vector to one number.
        cut: Layers up to F*.
        size: Units of F*.
    """

    def __init__(self, *layers: nn.Module, cut: int, size: int) -> None:
        super().__init__(*layers)
        self.cut = cut
        self.size = size

    def features(self, inputs: Tensor) -> Tensor:
        """Return F*, (..., size)."""
        for layer in islice(self, self.cut):
            inputs = layer(inputs)
        return inputs

    def score(self, features: Tensor) -> Tensor:
        """Return the unbounded estimate (..., 1) of F*."""
        for layer in islice(self, self.cut, None):
            features = layer(features)
        return features


def regressor(inputs: int, hidden: int, dropout: float, *, layers: int = 2) -> Head:
    """Return a head for one modality or for all.

    - 2 layers: F* = ReLU(W1 F + b1);  y = W2 Dropout(F*) + b2.
    - 3 layers, the release's (the method's section 1.3): F* = ReLU(W1 Dropout(F) + b1);
      y = W3 ReLU(W2 F* + b2) + b3.

    Args:
        inputs: Length of F.
        hidden: Units of F*.
        dropout: Probability.
        layers: 2 or 3.
    """
    first, last = nn.Linear(inputs, hidden), nn.Linear(hidden, 1)
    if layers == 2:
        return Head(first, nn.ReLU(), nn.Dropout(dropout), last, cut=2, size=hidden)
    middle = nn.Linear(hidden, hidden)
    return Head(nn.Dropout(dropout), first, nn.ReLU(), middle, nn.ReLU(), last, cut=3, size=hidden)


class Branch(nn.Module):
    """One modality: encoder, temporal attention and unimodal head.

    Args:
        config: Of this modality.
        model: Gives the window and what the heads have in common.
    """

    def __init__(self, config: BranchConfig, model: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(
            dim=config.dim,
            hidden=config.hidden,
            layers=config.layers,
            dropout=config.dropout,
            kind=config.encoder,
            centred=config.centred,
            horizon=config.horizon,
            bidirectional=config.bidirectional,
        )
        self.attention = TemporalAttention(
            hidden=self.encoder.size, kind=config.tam, residual=config.residual
        )
        self.project: nn.Linear | None = None
        if config.out:
            self.project = nn.Linear(self.encoder.size, config.out)
        self.size = config.out or self.encoder.size
        """Length of the modality's vector F_s, which is `Pooled.context`."""
        self.head = regressor(
            self.size,
            model.head // 2 if config.post is None else config.post,
            model.dropout if config.post_dropout is None else config.post_dropout,
            layers=model.head_layers,
        )
        self.window = model.window
        self.memory = model.window // config.period

    def initial_state(self, batch: int) -> BranchState:
        """Return the state of `batch` sessions that have seen nothing."""
        return BranchState(
            self.encoder.initial_state(batch), self.attention.initial_memory(batch, self.memory)
        )

    def step(
        self, ticks: Ticks, now_BN: Tensor, state: BranchState, turn: Turn | None = None
    ) -> tuple[Pooled, BranchState]:
        """Encode new ticks, pool at each hop, forget what is over the memory's size.

        Raises:
            ValueError: If the branch is bidirectional: then only `forward` works.
        """
        if self.config.bidirectional:
            raise ValueError(
                "bidirectional = true reads whole sequences only and cannot be stepped: "
                "call forward, or set bidirectional = false and train again"
            )
        return self._advance(ticks, now_BN, state, turn)

    def forward(self, ticks: Ticks, now_BN: Tensor, turn: Turn | None = None) -> Pooled:
        """Pool whole sequences from the initial state.

        A bidirectional branch sees at each hop also what comes after it.
        """
        return self._advance(ticks, now_BN, self.initial_state(len(now_BN)), turn)[0]

    def _advance(
        self, ticks: Ticks, now_BN: Tensor, state: BranchState, turn: Turn | None
    ) -> tuple[Pooled, BranchState]:
        ticks = compact(ticks)
        h_BTH, encoder = self.encoder.step(ticks, state.encoder)
        memory = self.attention.extend(state.memory, h_BTH, ticks)
        pooled = self.projected(self.attention.pool(memory, now_BN, self.window, turn))
        return pooled, BranchState(encoder, forget(memory, self.memory))

    def projected(self, pooled: Pooled) -> Pooled:
        """Return what was pooled with the modality's vector F_s for context."""
        if self.project is None:
            return pooled
        vector = self.project(self.encoder.dropout(pooled.context))
        return pooled._replace(context=vector.masked_fill(~pooled.present.unsqueeze(-1), 0.0))


def reset_branch(old: BranchState, new: BranchState, rows_B: Tensor) -> BranchState:
    """Replace the chosen rows of one modality's state."""

    def chosen(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(rows_B.view(-1, *[1] * (a.dim() - 1)), b, a)

    return BranchState(
        EncoderState(*map(chosen, old.encoder, new.encoder)),
        Memory(*map(chosen, old.memory, new.memory)),
    )
