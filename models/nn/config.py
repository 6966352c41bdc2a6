"""Everything that decides the shape of the model, and the presets.

Knows names and numbers. Knows no tensor.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from .attention import Tam
from .constants import MODALITIES
from .encoder import EncoderKind
from .fusion import Fusion
from .ulag import Labels, Similarity


def _one_of(key: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ValueError(
            f"{key} = {value!r} is not known: use one of {', '.join(map(str, allowed))}"
        )


@dataclass(frozen=True, kw_only=True)
class BranchConfig:
    """One modality's encoder, attention and head."""

    dim: int
    hidden: int = 64
    """Units of the LSTM, per direction."""
    layers: int = 2
    dropout: float = 0.2
    period: int = 1
    """Ticks from one feature vector to the next: audio 1 (50 Hz), vision 5 (10 Hz), text 1."""
    encoder: EncoderKind = "lstm"
    """`Encoder` has the equations."""
    centred: int = 0
    """Leading features that are taken relative to their running mean, see `Encoder`."""
    horizon: int = 500
    """Valid ticks after which that mean has mostly forgotten."""
    bidirectional: bool = False
    """Offline only: `step` refuses it."""
    tam: Tam = "softmax"
    """`TemporalAttention` has the equations."""
    residual: bool = False
    """h_hat = (1 + gate) h, for the gates."""
    out: int = 0
    """Units of F_s = W Dropout(c) + b behind attention (the release's audio_out, video_out);
    0 = none, F_s is the pooled vector c."""
    post: int | None = None
    """Units of F*_s, the unimodal representation; None = half of the fused one's."""
    post_dropout: float | None = None
    """In the unimodal head; None = that of the fused head."""

    def __post_init__(self) -> None:
        """Refuse a name that is not one of the choices."""
        _one_of("tam", self.tam, get_args(Tam))
        _one_of("encoder", self.encoder, get_args(EncoderKind))


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that decides the shape of the model; stored in the checkpoint.

    The defaults are what ships; a checkpoint that lacks a key was made when there was no choice.
    """

    text: BranchConfig = BranchConfig(dim=384)
    audio: BranchConfig = BranchConfig(dim=332, hidden=96, layers=1, dropout=0.3, centred=41)
    vision: BranchConfig = BranchConfig(dim=57, period=5)
    fusion: Fusion = "hadamard"
    """`SemanticFusion` has the equations."""
    semantic: int = 32
    """Common semantic dimensions of the fusion forms `hadamard` and `both`."""
    head: int = 64
    """Units of F*_m, the fused representation."""
    head_layers: int = 2
    """Linear layers per head: 2 or 3; `regressor` has the equations."""
    dropout: float = 0.2
    window: int = 250
    """Ticks over which attention pools; weights do not depend on it, so it may be changed."""
    labels: Labels = "none"
    """Unimodal labels of the training; `ulag_release` and `both` add expert and confidence
    layers."""
    similarity: Similarity = "dot"
    """`Ulag` has the equations."""
    expert: int = 16
    """Units of the expert projections."""
    shares: tuple[float, ...] = ()
    """Text, audio, vision: the fused score is the mean of the scores of the heads that are there,
    weighed by these shares; empty: it is that of the fused head."""
    scales: bool = False
    """Beside its score each head gives a scale s, and its share is over 1 + s^2; see `Scales`."""
    fused: tuple[str, ...] = MODALITIES
    """Modalities that the fused head was trained on; others count as absent in every estimate."""

    def __post_init__(self) -> None:
        """Refuse a name or number that is not one of the choices."""
        for name in self.fused:
            _one_of("fused", name, MODALITIES)
        if self.shares and (len(self.shares) != len(MODALITIES) or min(self.shares) <= 0):
            raise ValueError(f"shares = {self.shares}: give three numbers above 0, or none")
        _one_of("fusion", self.fusion, get_args(Fusion))
        _one_of("labels", self.labels, get_args(Labels))
        _one_of("similarity", self.similarity, get_args(Similarity))
        _one_of("head_layers", self.head_layers, (2, 3))

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "ModelConfig":
        """Rebuild a config from `config_dict`; refuses unknown keys with a TypeError."""
        branches = {name: BranchConfig(**values[name]) for name in MODALITIES}  # type: ignore[arg-type]
        rest = {key: value for key, value in values.items() if key not in MODALITIES}
        rest["fused"] = tuple(rest.get("fused", MODALITIES))  # type: ignore[arg-type]
        rest["shares"] = tuple(rest.get("shares", ()))  # type: ignore[arg-type]
        return cls(**branches, **rest)  # type: ignore[arg-type]


def config_dict(config: ModelConfig) -> dict[str, object]:
    """Return the config as plain values, the inverse of `ModelConfig.from_dict`."""
    return dataclasses.asdict(config)


def with_tam(config: ModelConfig, tam: Tam, *, residual: bool = False) -> ModelConfig:
    """Return the config with one form of attention in all three branches."""
    branches = {
        name: dataclasses.replace(getattr(config, name), tam=tam, residual=residual)
        for name in MODALITIES
    }
    return dataclasses.replace(config, **branches)


PRESETS = ("stream", "paper", "paper-mosi", "paper-mosei", "paper-sims")


def preset(name: str, *, dims: Mapping[str, int] | None = None) -> ModelConfig:
    """Return a named configuration.

    - `stream`: what ships: the defaults.
    - `paper-mosi`, `paper-mosei`, `paper-sims`; `paper` is `paper-mosi`: the dimensions of the
      authors' release (Sun and Wang 2024; the method's sections 1.1 and 1.5) with the defects of
      section 1.6 mended: the last VALID step is read, gradients reach the LSTM, the cross terms
      are on, and the confidence nets belong to the model. Text has no recurrent network and gates
      its oldest state, which is [CLS] in the packed feature files. Ours are the presence flags
      behind the fused vector and the bound of the estimates. The window of 512 ticks holds the
      longest packed sequence at one step per tick.

    Args:
        name: One of PRESETS.
        dims: Features per modality, where they are not those of the data set; then none of them
            is `centred`.

    Raises:
        ValueError: For another name or modality.
    """
    _one_of("preset", name, PRESETS)
    config = ModelConfig() if name == "stream" else _paper(name.partition("-")[2] or "mosi")
    changed = {}
    for modality, dim in (dims or {}).items():
        _one_of("modality", modality, MODALITIES)
        branch = getattr(config, modality)
        # Which features a level is taken from is known of our own front end alone.
        centred = branch.centred if dim == branch.dim else 0
        changed[modality] = dataclasses.replace(branch, dim=dim, centred=centred)
    return dataclasses.replace(config, **changed)


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """A column of the tables in sections 1.1 and 1.5; tuples are text, audio, vision."""

    dim: tuple[int, int, int]
    hidden: tuple[int, int]
    """Of audio and vision."""
    post: tuple[int, int, int]
    dropout: tuple[float, float, float]
    fused_dropout: float


_RELEASE = {
    "mosi": _Sizes(
        dim=(768, 5, 20),
        hidden=(32, 64),
        post=(64, 16, 32),
        dropout=(0.0, 0.1, 0.1),
        fused_dropout=0.1,
    ),
    "mosei": _Sizes(
        dim=(768, 74, 35),
        hidden=(32, 32),
        post=(32, 16, 16),
        dropout=(0.1, 0.0, 0.1),
        fused_dropout=0.0,
    ),
    "sims": _Sizes(
        dim=(768, 33, 709),
        hidden=(16, 64),
        post=(64, 16, 32),
        dropout=(0.1, 0.1, 0.0),
        fused_dropout=0.0,
    ),
}


def _paper(corpus: str) -> ModelConfig:
    sizes = _RELEASE[corpus]
    text, audio, vision = (
        BranchConfig(
            dim=dim,
            layers=1,
            dropout=0.0,
            post=post,
            post_dropout=dropout,
            tam="gate_last",
        )
        for dim, post, dropout in zip(sizes.dim, sizes.post, sizes.dropout, strict=True)
    )
    return ModelConfig(
        text=dataclasses.replace(text, encoder="identity", tam="gate_first"),
        audio=dataclasses.replace(audio, hidden=sizes.hidden[0], out=16),
        vision=dataclasses.replace(vision, hidden=sizes.hidden[1], out=32),
        fusion="cross_sum",
        head=128,
        head_layers=3,
        dropout=sizes.fused_dropout,
        window=512,
        labels="both",
    )
