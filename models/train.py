"""Train a shipped checkpoint: a branch per modality on its own corpus, then the fused head.

Knows feature files, CSVs of texts and the model. Knows no front end and no stream.

Each head has a random stream of its own that comes from the seed, so `only` gives the same numbers
as a run of all heads, on the same machine.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from .checkpoint import MINILM, Card, load, load_tuned, save
from .data import DataError, read_labelled, text_clips
from .evaluate import LIMITS, Form
from .finetune import TuneRecipe, finetune
from .options import preset
from .pairing import FusionRecipe, Vectors, copy_head, train_fusion
from .rows import BranchRecipe, Rows, Table, contexts, read_rows, stacked
from .single import Log, train_branch
from .tam_ulag import LIMIT, MODALITIES, TamUlag
from .text import PRETRAINED, TextEncoder, encoder_for
from .toml import checked, parsed

STAGES = (*MODALITIES, "sentiment")


class TuneTable(Table):
    """How the text encoder's last layers and the text branch are trained; see `TuneRecipe`."""

    train: list[Path]
    valid: list[Path]
    data: str
    encoder: str = Field(MINILM, description="Name of the packaged text encoder")
    form: Form = Field("mosi", description="Range of the labels, and form of the figures")
    extra: list[Path] = Field([], description="Texts of another kind, for the first epochs only")
    extra_epochs: Annotated[int, Field(ge=0, le=100)] = 0
    layers: Annotated[int, Field(ge=1, le=6)] = 6
    epochs: Annotated[int, Field(ge=1, le=100)] = 5
    forks: Annotated[int, Field(ge=1, le=20)] = 1
    batch: Annotated[int, Field(ge=1, le=1024)] = 32
    encoder_rate: Annotated[float, Field(gt=0, le=1)] = 1e-4
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.85
    head_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    bare: Annotated[float, Field(ge=0, le=1)] = 0.3
    prefix: Annotated[float, Field(ge=0, le=1)] = 0.1
    average: Annotated[float, Field(ge=0, lt=1)] = 0.998
    side: Annotated[float, Field(ge=0, le=10)] = 0.0
    recurrent: bool = Field(True, description="An LSTM over the token states; false: none")

    @field_validator("encoder")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in PRETRAINED:
            raise ValueError(f"known are {', '.join(PRETRAINED)}")
        return name


class Recipe(Table):
    """A whole training file. A head without a table stays as it is in the base, or untrained."""

    seed: int = 1
    tune: TuneTable | None = None
    """Text from CSVs, the text encoder trained as well; instead of `text`."""
    text: BranchRecipe | None = None
    """Text from feature files, the text encoder as it is; instead of `tune`."""
    audio: BranchRecipe | None = None
    vision: BranchRecipe | None = None
    fusion: FusionRecipe = FusionRecipe()

    @model_validator(mode="after")
    def _one_text(self) -> "Recipe":
        if self.tune and self.text:
            raise ValueError("give one of the tables [tune] and [text]")
        if not self.modalities:
            raise ValueError("give at least one of the tables [tune], [text], [audio] and [vision]")
        return self

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that have a table."""
        there = (self.tune or self.text, self.audio, self.vision)
        return tuple(name for name, table in zip(MODALITIES, there, strict=True) if table)


def read_recipe(path: Path) -> Recipe:
    """Read a training file.

    Raises:
        DataError: If it cannot be read, is of another kind, or has an unknown key or a value that
            is not allowed.
    """
    values = parsed(path)
    if values.get("kind") == "joint":
        raise DataError(
            f'{path} is for a joint training (kind = "joint"), and this needs a file that trains '
            "the heads apart, with tables such as [audio]: e.g. configs/train/default.toml"
        )
    return checked(path, values, Recipe)


def train(
    path: Path,
    out: Path,
    log: Log,
    *,
    only: Collection[str] = STAGES,
    base: str | None = None,
) -> dict[str, float]:
    """Train heads as the file says and write the checkpoint.

    Args:
        path: Training file; relative paths in it count from the working directory.
        out: Checkpoint to write.
        log: Called with a line of progress.
        only: Heads to train, of `text, audio, vision, sentiment`; `sentiment` is the fused one.
            It takes the modalities that have a table; others then count as absent in a stream.
        base: Checkpoint that the other heads are taken from; None: they stay untrained.

    Returns:
        Figures on the validation rows, also written into the card.

    Raises:
        DataError: If the training file or a feature file cannot be used.
        CheckpointError: If the base cannot be used.
    """
    recipe = read_recipe(path)
    torch.manual_seed(recipe.seed)
    stages = {stage for stage in (*recipe.modalities, "sentiment") if stage in only}
    if not stages:
        raise DataError(f"{path} has no table for {', '.join(only)}: add one, or change --only")
    model, card, tuned = _beginning(base, stages, recipe)
    trained = card.trained | dict.fromkeys(stages, True)
    figures = {k: v for k, v in card.figures.items() if k.partition(".")[0] not in stages}
    data, interval = dict(card.data), dict(card.interval)
    encoder = _encoder(recipe, base, stages)
    for number, stage in enumerate(STAGES):
        if stage not in stages:
            continue
        rng = np.random.default_rng((recipe.seed, number))
        torch.manual_seed(recipe.seed * 10 + number)
        if stage == "sentiment":
            interval = _fuse(model, encoder, recipe, rng, log)
            figures |= {f"sentiment.interval.{key}": value for key, value in interval.items()}
            data[stage] = (
                "clips of the modalities with nearly equal labels, paired at random"
                if len(recipe.modalities) > 1
                else f"says what the {recipe.modalities[0]} head says"
            )
        elif stage == "text" and recipe.tune is not None:
            values = recipe.tune.model_dump(exclude={"data", "encoder", "recurrent"})
            scores = finetune(encoder, model.text, TuneRecipe(**values), rng, log)
            tuned = encoder.layers(recipe.tune.layers)
            figures |= {f"text.{key}": value for key, value in scores.items()}
            data[stage] = recipe.tune.data
        else:
            chosen = getattr(recipe, stage)
            rows, valid = read_rows(chosen, stage)
            scores = train_branch(getattr(model, stage), rows, valid, chosen, rng, log)
            figures |= {f"{stage}.{key}": value for key, value in scores.items()}
            data[stage] = chosen.data
        log(f"{stage} is trained")
    card = Card(
        trained=trained,
        interval=interval,
        data=data,
        figures=figures,
        text_encoder=encoder.name,
    )
    save(model, card, out, tuned)
    return figures


def _beginning(
    base: str | None, stages: Collection[str], recipe: Recipe
) -> tuple[TamUlag, Card, dict[str, Tensor]]:
    """Return the model to begin with, its card, and what its text encoder differs in.

    A head that is to be trained begins with fresh weights whatever the base holds of it, and so
    does the text encoder.
    """
    config = preset("stream")
    if recipe.tune and not recipe.tune.recurrent:
        config = replace(config, text=replace(config.text, encoder="identity"))
    if base is None:
        return TamUlag(config), Card(trained=dict.fromkeys(STAGES, False)), {}
    known, card = load(base)
    shapes = {name: getattr(known.config, name) for name in MODALITIES if name not in stages}
    model = TamUlag(replace(config, **shapes))
    parts = {"fusion": "sentiment", "head": "sentiment"}
    kept = {
        name: value
        for name, value in known.state_dict().items()
        if parts.get(first := name.partition(".")[0], first) not in stages
    }
    model.load_state_dict(model.state_dict() | kept)
    return model, card, {} if "text" in stages else load_tuned(base)


def _encoder(recipe: Recipe, base: str | None, stages: Collection[str]) -> TextEncoder:
    """Return the text encoder to begin with: as packaged where text is trained, else the base's."""
    if "text" in stages or base is None:
        return TextEncoder(name=recipe.tune.encoder if recipe.tune else MINILM)
    return encoder_for(base)


def _fuse(
    model: TamUlag, encoder: TextEncoder, recipe: Recipe, rng: np.random.Generator, log: Log
) -> dict[str, float]:
    """Train the fused head on vectors from the branches as they are now; return half widths.

    Several modalities are paired on validation clips. Of one there is nothing to fuse: the fused
    head learns on the training clips to say what the modality's own head says.
    """
    names = recipe.modalities
    model.config = replace(model.config, fused=names)
    held = {name: pooled_vectors(model, encoder, recipe, name, "valid") for name in names}
    if len(names) > 1:
        return train_fusion(model, held, recipe.fusion, rng, log)
    seen = pooled_vectors(model, encoder, recipe, names[0], "train")
    return copy_head(model, names[0], seen, held[names[0]], recipe.fusion, rng)


def pooled_vectors(
    model: TamUlag,
    encoder: TextEncoder,
    recipe: Recipe,
    name: str,
    part: Literal["train", "valid"],
) -> Vectors:
    """Return the pooled vectors of one modality's clips."""
    if name == "text" and recipe.tune is not None:
        how = BranchRecipe(train=[], valid=[], data="", epochs=1)
        rows = _texts(getattr(recipe.tune, part), encoder, recipe.tune.form)
    else:
        how = getattr(recipe, name)
        rows = read_rows(how, name)[part == "valid"]
    return Vectors(contexts(getattr(model, name), rows, how), rows.labels)


def _texts(files: Sequence[Path], encoder: TextEncoder, form: Form) -> Rows:
    """Return the sentences of CSVs as rows of token states, with labels in [-3, 3]."""
    limit = LIMITS[form]
    found = [row for path in files for row in read_labelled(path, limit=limit)]
    rows = [replace(row, label=row.label * (LIMIT / limit)) for row in found]
    clips = text_clips(rows, encoder.encode_batch([row.text for row in rows]))
    return stacked([clip for clip in clips if "text" in clip.values], "text")
