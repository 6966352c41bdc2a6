"""TamUlag: the incremental TAM-ULAG model as three functions of explicit state.

Knows ticks, hops and state. Knows nothing of cameras, sockets, clocks or files.

Shapes: B sessions, N hops, T ticks, S attended ticks, M = 3 modalities (text, audio, vision).
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .attention import Memory, Pooled, TemporalAttention, forget
from .encoder import Encoder, EncoderState, Ticks, compact
from .fusion import SemanticFusion

MODALITIES = ("text", "audio", "vision")
TICK_RATE = 50
TEXT_TOKENS = 128
LIMIT = 3.0
"""Sentiment lies in [-3, 3]."""


@dataclass(frozen=True, kw_only=True)
class BranchConfig:
    """Sizes of one modality's encoder."""

    dim: int
    hidden: int = 64
    layers: int = 2
    dropout: float = 0.2
    period: int = 1
    """Ticks from one feature vector to the next: audio 1 (50 Hz), vision 5 (10 Hz), text 1."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that decides the shape of the model; stored in the checkpoint."""

    text: BranchConfig = BranchConfig(dim=384)
    audio: BranchConfig = BranchConfig(dim=44)
    vision: BranchConfig = BranchConfig(dim=57, period=5)
    semantic: int = 32
    """Common semantic dimensions of the fusion."""
    head: int = 64
    """Hidden units of the fused head; the unimodal heads have half."""
    dropout: float = 0.2
    window: int = 250
    """Ticks over which attention pools; weights do not depend on it, so it may be changed."""

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "ModelConfig":
        """Rebuild a config from `dataclasses.asdict`; refuses unknown keys with a TypeError."""
        branches = {name: BranchConfig(**values[name]) for name in MODALITIES}  # type: ignore[arg-type]
        rest = {key: value for key, value in values.items() if key not in MODALITIES}
        return cls(**branches, **rest)  # type: ignore[arg-type]


class BranchState(NamedTuple):
    """What one modality remembers."""

    encoder: EncoderState
    memory: Memory


class State(NamedTuple):
    """What the model remembers of B sessions: a value, every tensor has the batch first."""

    text: BranchState
    audio: BranchState
    vision: BranchState


class Output(NamedTuple):
    """What the model says at each hop."""

    sentiment: Tensor
    """(B, N) float32 in [-3, 3], from all modalities that are present."""
    heads: Tensor
    """(B, N, M) float32 in [-3, 3], each from one modality alone; meaningless where absent."""
    present: Tensor
    """(B, N, M) bool."""
    weight: Tensor
    """(B, N, M) float32, share of each modality in the fusion; sums to 1 or is all 0."""
    attention: tuple[Pooled, Pooled, Pooled]
    """Per modality the pooled states with weights over time."""


class Branch(nn.Module):
    """One modality: encoder, temporal attention and unimodal head."""

    def __init__(self, config: BranchConfig, *, window: int, head: int, dropout: float) -> None:
        super().__init__()
        self.encoder = Encoder(
            dim=config.dim, hidden=config.hidden, layers=config.layers, dropout=config.dropout
        )
        self.attention = TemporalAttention(hidden=config.hidden)
        self.head = regressor(config.hidden, head, dropout)
        self.window = window
        self.memory = window // config.period

    def initial_state(self, batch: int) -> BranchState:
        """Return the state of `batch` sessions that have seen nothing."""
        return BranchState(
            self.encoder.initial_state(batch), self.attention.initial_memory(batch, self.memory)
        )

    def step(self, ticks: Ticks, now_BN: Tensor, state: BranchState) -> tuple[Pooled, BranchState]:
        """Encode new ticks, pool at each hop, forget what is over the memory's size."""
        ticks = compact(ticks)
        h_BTH, encoder = self.encoder.step(ticks, state.encoder)
        memory = self.attention.extend(state.memory, h_BTH, ticks)
        pooled = self.attention.pool(memory, now_BN, self.window)
        return pooled, BranchState(encoder, forget(memory, self.memory))


class TamUlag(nn.Module):
    """Temporal attention over recurrent states, fused per semantic dimension; four heads.

    Source: Sun and Wang, JEIT 2024, 46(2): 588-601, in the form of the method's section 1.7
    (softmax attention, Hadamard fusion). The heads end in 3 tanh(z / 3), so every estimate lies in
    [-3, 3]. State is a value: any number of sessions share one module.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.text = self._branch(config.text)
        # Several tokens share one word's time, so text needs more room than ticks suggest.
        self.text.memory = max(TEXT_TOKENS, 16 * config.window // TICK_RATE)
        self.audio = self._branch(config.audio)
        self.vision = self._branch(config.vision)
        hidden = [getattr(config, name).hidden for name in MODALITIES]
        self.fusion = SemanticFusion(hidden=hidden, semantic=config.semantic)
        self.head = regressor(self.fusion.size, config.head, config.dropout)

    def _branch(self, branch: BranchConfig) -> Branch:
        config = self.config
        return Branch(branch, window=config.window, head=config.head // 2, dropout=config.dropout)

    def initial_state(self, batch: int = 1) -> State:
        """Return the state of `batch` sessions that have seen nothing."""
        return State(*(self._of(name).initial_state(batch) for name in MODALITIES))

    def step(
        self,
        ticks: Mapping[str, Ticks],
        now_BN: Tensor,
        state: State,
        allowed_BNM: Tensor | None = None,
    ) -> tuple[Output, State]:
        """Advance every session by new ticks and score N hops.

        Any cut of a stream into steps gives the same estimates, as long as the ticks of a hop come
        no later than the hop.

        Args:
            ticks: New ticks per modality; a modality that is not named brought nothing.
            now_BN: (B, N) int64, the ticks at which the hops end, rising.
            state: From `initial_state` or the previous `step`; never changed in place.
            allowed_BNM: bool; False keeps a modality out of the fusion of a hop although something
                of it lies in the window (its source is lost). None allows all.

        Returns:
            The estimates and the next state.

        Raises:
            ValueError: If a shape does not fit the configuration or the batch.
        """
        pooled, states = [], []
        for name, before in zip(MODALITIES, state, strict=True):
            new = self._checked(name, ticks.get(name), now_BN)
            out, after = self._of(name).step(new, now_BN, before)
            pooled.append(out)
            states.append(after)
        present = torch.stack([p.present for p in pooled], dim=-1)
        if allowed_BNM is not None:
            present = present & allowed_BNM
        fused, weight = self.fusion([p.context for p in pooled], present)
        heads = [self._of(n).head(p.context) for n, p in zip(MODALITIES, pooled, strict=True)]
        return (
            Output(
                bounded(self.head(fused).squeeze(-1)),
                bounded(torch.cat(heads, dim=-1)),
                present,
                weight,
                (pooled[0], pooled[1], pooled[2]),
            ),
            State(*states),
        )

    def forward(
        self,
        ticks: Mapping[str, Ticks],
        now_BN: Tensor,
        allowed_BNM: Tensor | None = None,
    ) -> Output:
        """Score a whole sequence from the initial state: one long `step`."""
        output, _ = self.step(ticks, now_BN, self.initial_state(len(now_BN)), allowed_BNM)
        return output

    def _of(self, name: str) -> Branch:
        branch: Branch = getattr(self, name)
        return branch

    def _checked(self, name: str, ticks: Ticks | None, now_BN: Tensor) -> Ticks:
        batch, dim = len(now_BN), self._of(name).encoder.mean.shape[0]
        if ticks is None:
            none = now_BN.new_zeros(batch, 0)
            values = self._of(name).encoder.mean.new_zeros(batch, 0, dim)
            return Ticks(values, none.bool(), none, none)
        B, T, D = ticks.values.shape
        shapes = {tuple(x.shape) for x in (ticks.mask, ticks.time, ticks.ready)}
        if dim != D or batch != B or shapes != {(B, T)}:
            raise ValueError(
                f"{name} values {(B, T, D)} with masks and times {sorted(shapes)}: "
                f"expected ({batch}, T, {dim}) and ({batch}, T)"
            )
        return ticks


def regressor(inputs: int, hidden: int, dropout: float) -> nn.Sequential:
    """Return the two-layer head of the release: W2 ReLU(W1 Dropout(F) + b1) + b2."""
    first = nn.Linear(inputs, hidden)
    return nn.Sequential(first, nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 1))


def bounded(z: Tensor) -> Tensor:
    """Squash into [-3, 3] with slope 1 at 0, so that the gradient never dies."""
    return LIMIT * torch.tanh(z / LIMIT)


def reset(state: State, fresh: State, rows_B: Tensor) -> State:
    """Return `state` with the chosen rows replaced by those of `fresh`; other rows keep their bits.

    Args:
        state: Of B sessions.
        fresh: Of B sessions, e.g. `initial_state(B)`.
        rows_B: (B,) bool, True = replace.
    """
    return State(*(reset_branch(old, new, rows_B) for old, new in zip(state, fresh, strict=True)))


def reset_branch(old: BranchState, new: BranchState, rows_B: Tensor) -> BranchState:
    """Replace the chosen rows of one modality's state."""

    def chosen(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(rows_B.view(-1, *[1] * (a.dim() - 1)), b, a)

    return BranchState(
        EncoderState(*map(chosen, old.encoder, new.encoder)),
        Memory(*map(chosen, old.memory, new.memory)),
    )


def config_dict(config: ModelConfig) -> dict[str, object]:
    """Return the config as plain values, the inverse of `ModelConfig.from_dict`."""
    return dataclasses.asdict(config)
