"""TamUlag: the incremental TAM-ULAG model as three functions of explicit state.

Knows ticks, hops and state. Knows nothing of cameras, sockets, clocks or files.

Shapes: B sessions, N hops, T ticks, S attended ticks, M = 3 modalities (text, audio, vision).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .attention import Pooled, Turn
from .branch import Branch, BranchState, Head, regressor, reset_branch
from .config import BranchConfig, ModelConfig, config_dict
from .constants import LIMIT, MODALITIES, TICK_RATE
from .encoder import Ticks
from .fusion import SemanticFusion
from .scale import LARGEST, Scales
from .ulag import LAYERED, Ulag

__all__ = [
    "LIMIT",
    "MODALITIES",
    "TEXT_TOKENS",
    "TICK_RATE",
    "Branch",
    "BranchConfig",
    "BranchState",
    "Head",
    "ModelConfig",
    "Output",
    "State",
    "TamUlag",
    "Turns",
    "bounded",
    "config_dict",
    "regressor",
    "reset",
    "reset_branch",
    "weighed",
]

TEXT_TOKENS = 128


class State(NamedTuple):
    """What the model remembers of B sessions: a value, every tensor has the batch first."""

    text: BranchState
    audio: BranchState
    vision: BranchState


SPOKEN = ("text", "audio")
"""The modalities that have turns; of the face all of the window counts."""


class Turns(NamedTuple):
    """What is being said at each hop; see `Turn`."""

    since: Tensor
    """(B, N, 2) int64, of text and audio."""
    share: Tensor
    """(B, N, 2) float32."""

    def of(self, name: str) -> Turn | None:
        """Return the turn of one modality, if it has turns."""
        if name not in SPOKEN:
            return None
        index = SPOKEN.index(name)
        return Turn(self.since[..., index], self.share[..., index])


class Output(NamedTuple):
    """The model's estimates at each hop."""

    sentiment: Tensor
    """(B, N) float32 in [-3, 3], from all modalities that are present."""
    heads: Tensor
    """(B, N, M) float32 in [-3, 3], each from one modality alone; meaningless where absent."""
    present: Tensor
    """(B, N, M) bool."""
    weight: Tensor
    """(B, N, M) float32, share of each modality in the fusion; sums to 1 or is all 0."""
    scale: Tensor
    """(B, N, M) float32, of each head's error, in units of sentiment: see `Scales`; 1 without
    scales, meaningless where absent."""
    attention: tuple[Pooled, Pooled, Pooled]
    """Per modality the pooled states with weights over time."""
    features: tuple[Tensor, ...] = ()
    """F*_m, F*_t, F*_a, F*_v: what the fused head and the heads of text, audio and vision see
    before their last layers, each (B, N, `Head.size`); meaningless where absent. With shares there
    is no F*_m. For training."""


class TamUlag(nn.Module):
    """Temporal attention over recurrent states, fused per semantic dimension; four heads.

    Source: Sun and Wang, JEIT 2024, 46(2): 588-601; `ModelConfig` chooses among the forms of its
    parts. The heads end in 3 tanh(z / 3), so every estimate lies in [-3, 3]. State is a value: any
    number of sessions share one module.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.text = Branch(config.text, config)
        # Several tokens share one word's time, so text needs more room than ticks suggest.
        self.text.memory = max(TEXT_TOKENS, 16 * config.window // TICK_RATE)
        self.audio = Branch(config.audio, config)
        self.vision = Branch(config.vision, config)
        branches = (self.text, self.audio, self.vision)
        self.fusion = SemanticFusion(
            hidden=[b.size for b in branches], semantic=config.semantic, kind=config.fusion
        )
        self.head = regressor(
            self.fusion.size, config.head, config.dropout, layers=config.head_layers
        )
        self.scales: Scales | None = None
        """How sure each head is; None: nobody says."""
        if config.scales:
            self.scales = Scales([b.size for b in branches])
        self.ulag: Ulag | None = None
        """Makes unimodal labels in training in the release's form; not used by an estimate."""
        if config.labels in LAYERED:
            sizes = [self.head.size, *(b.head.size for b in branches)]
            self.ulag = Ulag(sizes=sizes, expert=config.expert, similarity=config.similarity)

    def initial_state(self, batch: int = 1) -> State:
        """Return the state of `batch` sessions that have seen nothing."""
        return State(*(self._of(name).initial_state(batch) for name in MODALITIES))

    def step(
        self,
        ticks: Mapping[str, Ticks],
        now_BN: Tensor,
        state: State,
        allowed_BNM: Tensor | None = None,
        turns: Turns | None = None,
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
            turns: What is being said; None: attention sees all of the window.

        Returns:
            The estimates and the next state.

        Raises:
            ValueError: If a shape does not fit the configuration or the batch, or if a branch is
                bidirectional.
        """
        for name in MODALITIES:
            if getattr(self.config, name).bidirectional:
                raise ValueError(
                    f"{name}.bidirectional = true reads whole sequences only and cannot stream: "
                    f"call forward, or set {name}.bidirectional = false and train again"
                )
        return self._advance(ticks, now_BN, state, allowed_BNM, turns)

    def forward(
        self,
        ticks: Mapping[str, Ticks],
        now_BN: Tensor,
        allowed_BNM: Tensor | None = None,
        turns: Turns | None = None,
    ) -> Output:
        """Score a whole sequence from the initial state: one long `step`.

        A bidirectional branch, which cannot step, sees at each hop also what comes after it.
        """
        state = self.initial_state(len(now_BN))
        return self._advance(ticks, now_BN, state, allowed_BNM, turns)[0]

    def _advance(
        self,
        ticks: Mapping[str, Ticks],
        now_BN: Tensor,
        state: State,
        allowed_BNM: Tensor | None,
        turns: Turns | None,
    ) -> tuple[Output, State]:
        pooled, states = [], []
        for name, before in zip(MODALITIES, state, strict=True):
            new = self._checked(name, ticks.get(name), now_BN)
            turn = None if turns is None else turns.of(name)
            out, after = self._of(name)._advance(new, now_BN, before, turn)
            pooled.append(out)
            states.append(after)
        return self.decide(pooled, allowed_BNM), State(*states)

    def decide(self, pooled: Sequence[Pooled], allowed_BNM: Tensor | None) -> Output:
        """Fuse the pooled text, audio and vision; see `step`."""
        present = torch.stack([p.present for p in pooled], dim=-1)
        if len(self.config.fused) < len(MODALITIES):
            present = present & torch.tensor([name in self.config.fused for name in MODALITIES])
        if allowed_BNM is not None:
            present = present & allowed_BNM
        contexts = [p.context for p in pooled]
        heads = [self._of(name).head for name in MODALITIES]
        features = [head.features(x) for head, x in zip(heads, contexts, strict=True)]
        scores = [head.score(x) for head, x in zip(heads, features, strict=True)]
        alone = bounded(torch.cat(scores, dim=-1))
        scale = None if self.scales is None else self.scales(contexts, [p.weight for p in pooled])
        if self.config.shares:
            sentiment, weight = weighed(alone, present, self.config.shares, scale)
        else:
            fused, weight = self.fusion(contexts, present)
            features = [self.head.features(fused), *features]
            sentiment = bounded(self.head.score(features[0]).squeeze(-1))
        return Output(
            sentiment,
            alone,
            present,
            weight,
            torch.ones_like(alone) if scale is None else scale,
            (pooled[0], pooled[1], pooled[2]),
            tuple(features),
        )

    def _of(self, name: str) -> Branch:
        branch: Branch = getattr(self, name)
        return branch

    def _checked(self, name: str, ticks: Ticks | None, now_BN: Tensor) -> Ticks:
        batch, dim = len(now_BN), getattr(self.config, name).dim
        if ticks is None:
            none = now_BN.new_zeros(batch, 0)
            values = self._of(name).encoder.mean.new_zeros(batch, 0, dim)
            return Ticks(values, none.bool(), none, none)
        B, T, D = ticks.values.shape
        shapes = (ticks.mask.shape, ticks.time.shape, ticks.ready.shape)
        if (batch, dim) != (B, D) or shapes != ((B, T),) * 3:
            raise ValueError(
                f"{name} values {(B, T, D)} with masks and times {[tuple(s) for s in shapes]}: "
                f"expected ({batch}, T, {dim}) and ({batch}, T)"
            )
        return ticks


def bounded(z: Tensor) -> Tensor:
    """Squash into [-3, 3] with slope 1 at 0, so that the gradient never dies."""
    return LIMIT * torch.tanh(z / LIMIT)


def weighed(
    heads_BNM: Tensor,
    present_BNM: Tensor,
    shares: Sequence[float],
    scale_BNM: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the mean (B, N) of the present heads' scores, and the weight (B, N, M) of each.

    A modality that is alone has weight 1; where none is present all is 0.

    Args:
        heads_BNM: Scores, ignored where absent.
        present_BNM: bool.
        shares: Of each modality in the mean.
        scale_BNM: Of each head's error s, at most `LARGEST`: a share is divided by 1 + s^2, so one
            in doubt counts less, and one that is sure no more than its share. None: by nothing.
    """
    share = torch.tensor([*shares])
    if scale_BNM is not None:
        share = share / (1 + scale_BNM.square())
    share_BNM = torch.where(present_BNM, share, 0.0)
    least = min(shares) / (1 + LARGEST**2)
    weight = share_BNM / share_BNM.sum(dim=-1, keepdim=True).clamp(min=least)
    return (weight * torch.where(present_BNM, heads_BNM, 0.0)).sum(dim=-1), weight


def reset(state: State, fresh: State, rows_B: Tensor) -> State:
    """Return `state` with the chosen rows replaced by those of `fresh`; other rows keep their bits.

    Args:
        state: Of B sessions.
        fresh: Of B sessions, e.g. `initial_state(B)`.
        rows_B: (B,) bool, True = replace.
    """
    return State(*(reset_branch(old, new, rows_B) for old, new in zip(state, fresh, strict=True)))
