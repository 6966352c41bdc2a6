"""The training file of heads that are trained apart: its keys, their ranges and what they mean.

Knows names and numbers. Knows no clip and no tensor.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ..data.label_scale import Form
from ..nn.attention import Tam
from ..nn.config import BranchConfig
from ..nn.constants import MODALITIES
from ..nn.encoder import EncoderKind
from ..runtime.checkpoint import MINILM
from ..text.text_encoder import PRETRAINED
from .recipe_file import Table

Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Loss = Literal["l1", "l2"]
LOSSES = "l1: absolute error, as in the paper; l2: squared, less sure in doubt"


def _encoder_kind(recurrent: bool) -> EncoderKind:
    return "lstm" if recurrent else "identity"


class BranchRecipe(Table):
    """How one modality's branch is trained."""

    train: list[Path] = Field(description="Feature files")
    valid: list[Path] = Field(description="Feature files; may be those of train, with groups")
    valid_groups: list[str] = Field([], description="Groups of these files that are only validated")
    data: str = Field(description="Names of the corpora, for the card")
    epochs: Annotated[int, Field(ge=1, le=500)]
    rate: Rate = 1e-3
    decay: Share = 1e-3
    batch: Annotated[int, Field(ge=1, le=4096)] = 64
    still: Annotated[int, Field(ge=0, le=500)] = Field(
        0, description="Vectors into which a single picture is repeated; 0 = none"
    )
    jitter: Share = Field(
        0.0, description="Noise on a repeated picture, in standard deviations of the corpus"
    )
    crop: Annotated[int, Field(ge=0, le=500)] = Field(
        0, description="Shortest random piece of a clip in vectors; 0 = whole clips"
    )
    longest: Annotated[int, Field(ge=0, le=3000)] = Field(
        0, description="Longest such piece; 0 = the whole clip"
    )
    offset: Annotated[float, Field(ge=0, le=3)] = Field(
        0.0, description="Noise that is the same for a whole clip, in standard deviations"
    )
    loss: Loss = Field("l1", description=LOSSES)
    classes: Annotated[float, Field(ge=0, le=3)] = Field(
        0.0, description="Weight of the seven classes of Acc7 beside the sentiment"
    )
    balance: bool = Field(
        False, description="Weigh clips so that negative and positive ones count the same in all"
    )
    average: Decay = Field(
        0.0, description="Decay per step of the moving average of the weights, which is used"
    )
    choose: bool = Field(
        True, description="Use the epoch with the lowest validation MAE; false = the last one"
    )
    recurrent: bool = Field(True, description="An LSTM over the vectors; false: none")
    tam: Tam = Field("softmax", description="Temporal attention; mean = all vectors count the same")
    ridge: Annotated[float, Field(ge=0, le=100)] = Field(
        0.0,
        description="Penalty of a ridge regression of the pooled vectors, whose estimate is "
        "averaged with that of the trained head; 0 = none",
    )

    def shape(self, config: BranchConfig) -> BranchConfig:
        """Return the branch's shape as the recipe has it."""
        return replace(config, encoder=_encoder_kind(self.recurrent), tam=self.tam)


class TuneRecipe(Table):
    """How the text encoder's last layers and the text branch are trained together."""

    train: list[Path] = Field(description="CSVs of texts")
    valid: list[Path]
    data: str = Field(description="Names of the corpora, for the card")
    encoder: str = Field(MINILM, description="Name of the packaged text encoder")
    start: str | None = Field(
        None,
        description="Checkpoint whose encoder and text branch are trained further; none: the "
        "packaged encoder and a new branch",
    )
    kept: Share = Field(
        0.0, description="Share of the weights of `start` in those that are used in the end"
    )
    """Robust fine-tuning: it keeps what was known before (Wortsman et al. 2022, WiSE-FT)."""
    form: Form = Field("mosi", description="Range of the labels, and form of the figures")
    extra: list[Path] = Field(
        [], description="Texts of another kind, labels in [-3, 3], for the first epochs only"
    )
    extra_epochs: Annotated[int, Field(ge=0, le=100)] = 0
    layers: Annotated[int, Field(ge=1, le=12)] = Field(
        6, description="Layers that are trained, counted from the last one"
    )
    adapters: Annotated[int, Field(ge=0, le=256)] = Field(
        0,
        description="Rank of low-rank adapters, which are trained in place of these layers' "
        "weights; 0 = none",
    )
    epochs: Annotated[int, Field(ge=1, le=100)] = 5
    forks: Annotated[int, Field(ge=1, le=20)] = 1
    """Runs that part after the first `extra_epochs`, each with rows in an order of its own.

    The mean of their weights is used where it is better (Wortsman et al. 2022, Model soups): runs
    that part late end near enough to each other for a mean.
    """
    batch: Annotated[int, Field(ge=1, le=1024)] = 32
    encoder_rate: Rate = Field(
        1e-4, description="Of the last layer; it is multiplied by layer_decay per layer below"
    )
    layer_decay: Rate = 0.85
    head_rate: Rate = 1e-3
    bare: Share = Field(0.3, description="Share of sentences that lose their punctuation")
    prefix: Share = Field(0.1, description="Share of sentences that are cut to a random prefix")
    fillers: Share = Field(0.0, description="Share of sentences with English fillers, and repeats")
    average: Decay = Field(0.998, description="Decay per step of the moving average of the weights")
    loss: Loss = Field("l1", description=LOSSES)
    side: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Weight of a logistic loss on whether the label is above 0, beside the L1 loss.

    A label of 0 counts as below in the form of CH-SIMS, as its Acc2 has it, else not at all.
    """
    recurrent: bool = Field(True, description="An LSTM over the token states; false: none")
    tam: Tam = Field("softmax", description="Temporal attention; mean = all tokens count the same")

    def shape(self, config: BranchConfig, size: int) -> BranchConfig:
        """Return the branch's shape as the recipe has it, for token states of `size` values."""
        return replace(config, dim=size, encoder=_encoder_kind(self.recurrent), tam=self.tam)

    @model_validator(mode="after")
    def _kept_wants_start(self) -> "TuneRecipe":
        if self.kept and self.start is None:
            raise ValueError(f"kept = {self.kept} is a share of start: name one, or leave kept out")
        return self

    @field_validator("encoder")
    @classmethod
    def _is_packaged(cls, name: str) -> str:
        if name not in PRETRAINED:
            raise ValueError(f"known are {', '.join(PRETRAINED)}")
        return name


class FusionRecipe(Table):
    """How the fusion is trained."""

    shares: tuple[Rate, Rate, Rate] | None = Field(
        None,
        description="Text, audio, vision: weights of the heads' scores, in place of a fused head "
        "that is trained",
    )
    scales: bool = Field(
        False,
        description="Fit a scale s of each head's error; shares are divided by 1 + s^2",
    )
    steps: Annotated[int, Field(ge=1, le=100_000)] = 3000
    batch: Annotated[int, Field(ge=1, le=4096)] = 256
    rate: Rate = 1e-3
    decay: Share = 1e-2
    near: Annotated[float, Field(gt=0, le=6)] = Field(
        0.5, description="Largest distance between the labels of clips that are paired"
    )

    @model_validator(mode="after")
    def _scales_want_shares(self) -> "FusionRecipe":
        if self.scales and self.shares is None:
            raise ValueError("scales = true changes the shares: give shares, or leave scales out")
        return self


class HeadsRecipe(Table):
    """A whole training file. A head without a table stays as it is in the base, or untrained."""

    seed: int = 1
    tune: TuneRecipe | None = None
    """Text from CSVs, the text encoder trained as well; in place of `text`."""
    text: BranchRecipe | None = None
    """Text from feature files, the text encoder as it is; in place of `tune`."""
    audio: BranchRecipe | None = None
    vision: BranchRecipe | None = None
    fusion: FusionRecipe = FusionRecipe()

    @model_validator(mode="after")
    def _one_text(self) -> "HeadsRecipe":
        if self.tune and self.text:
            raise ValueError("give one of the tables [tune] and [text]")
        if not self.tables:
            raise ValueError("give at least one of the tables [tune], [text], [audio] and [vision]")
        return self

    @property
    def tables(self) -> dict[str, TuneRecipe | BranchRecipe]:
        """Tables of the modalities that have one, in their order."""
        tables = zip(MODALITIES, (self.tune or self.text, self.audio, self.vision), strict=True)
        return {name: table for name, table in tables if table is not None}
