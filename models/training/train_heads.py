"""Train a shipped checkpoint: a branch per modality on its own corpus, then the fused head.

Knows feature files, CSVs of texts and the model. Knows no front end and no stream.

Each head has a random stream of its own that comes from the seed, so `only` gives the same numbers
as a run of all heads, on the same machine.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from ..data.clips import DataError, TextRow, text_clips
from ..data.label_scale import Form
from ..data.text_csv import Part, read_part
from ..evaluation.conformal import Widths
from ..nn.branch import Branch
from ..nn.config import preset
from ..nn.tam_ulag import MODALITIES, TamUlag
from ..runtime.checkpoint import MINILM, Card, load, load_tuned, save
from ..text.text_encoder import PRETRAINED, TextEncoder, encoder_for
from .branch_batches import BranchRecipe, Rows, Table, contexts, read_rows, stacked
from .prefix_clips import prefix_rows, prefix_texts
from .recipe_file import checked, parsed
from .run_folder import LAST, Log, Tell, quiet
from .text_finetune import finetune
from .text_network import TuneRecipe
from .train_branch import train_branch
from .train_fusion import (
    FusionRecipe,
    PrefixVectors,
    Vectors,
    copy_head,
    first_half,
    intervals,
    train_fusion,
)

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
    tell: Tell = quiet,
    runs: Path | None = None,
    resume: bool = False,
) -> dict[str, float]:
    """Train heads as the file says and write the checkpoint.

    Args:
        path: Training file; relative paths in it count from the working directory.
        out: Checkpoint to write.
        log: Called with a line of progress.
        only: Heads to train, of `text, audio, vision, sentiment`; `sentiment` is the fused one.
            It takes the modalities that have a table; others then count as absent in a stream.
        base: Checkpoint that the other heads are taken from; None: they stay untrained.
        tell: Called with what is being done, how much of it is done, and of how much.
        runs: Folder in which the epochs of the table [tune] are kept in `NAME-text`, NAME that of
            the training file, until the checkpoint is written; None: they are not kept.
        resume: Go on with the text encoder's training that was stopped.

    Returns:
        Figures on the validation rows, also written into the card.

    Raises:
        DataError: If the training file or a feature file cannot be used, or there is a stopped
            training without `resume`, or none with it.
        CheckpointError: If the base cannot be used.
    """
    recipe = read_recipe(path)
    torch.manual_seed(recipe.seed)
    stages = {stage for stage in (*recipe.modalities, "sentiment") if stage in only}
    if not stages:
        raise DataError(f"{path} has no table for {', '.join(only)}: add one, or change --only")
    model, card, tuned = _beginning(base, stages, recipe)
    trained = card.trained | dict.fromkeys(stages, True)
    folder = None if runs is None or not tunes(recipe, stages) else runs / f"{path.stem}-text"
    if folder is not None:
        _check_last(folder / LAST, resume=resume)
    figures = {k: v for k, v in card.figures.items() if k.partition(".")[0] not in stages}
    data, found = dict(card.data), Widths(card.interval, card.begun, card.heard, card.clips)
    encoder = _encoder(recipe, base, stages)
    for number, stage in enumerate(STAGES):
        if stage not in stages:
            continue
        rng = np.random.default_rng((recipe.seed, number))
        torch.manual_seed(recipe.seed * 10 + number)
        if stage == "sentiment":
            found = _fuse(model, encoder, recipe, rng, log)
            figures |= {f"sentiment.interval.{key}": half for key, half in found.interval.items()}
            data[stage] = _sources(recipe)
        else:
            shown = partial(_told, tell, stage)
            scores = _train_head(model, encoder, recipe, stage, rng, log, shown, folder)
            figures |= {f"{stage}.{key}": value for key, value in scores.items()}
            data[stage] = _table(recipe, stage).data
        log(f"{stage} is trained")
    card = Card(
        trained=trained,
        **found._asdict(),
        data=data,
        figures=figures,
        text_encoder=encoder.name,
    )
    if recipe.tune is not None and "text" in stages:
        tuned = encoder.layers(recipe.tune.layers)
    save(model, card, out, tuned)
    if folder is not None:
        (folder / LAST).unlink()
    return figures


def tunes(recipe: Recipe, stages: Collection[str]) -> bool:
    """Return whether the text encoder is trained, whose training can be gone on with."""
    return recipe.tune is not None and "text" in stages


def _table(recipe: Recipe, name: str) -> TuneTable | BranchRecipe:
    """Return the table that a modality's head is trained by."""
    table: TuneTable | BranchRecipe | None = getattr(recipe, name)
    if name == "text":
        table = recipe.tune or recipe.text
    if table is None:
        raise DataError(f"the training file has no table for {name}: add one, or change --only")
    return table


def _sources(recipe: Recipe) -> str:
    if len(recipe.modalities) > 1:
        return "clips of the modalities with nearly equal labels, paired at random"
    return f"says what the {recipe.modalities[0]} head says"


def _train_head(
    model: TamUlag,
    encoder: TextEncoder,
    recipe: Recipe,
    name: str,
    rng: np.random.Generator,
    log: Log,
    tell: Tell,
    folder: Path | None,
) -> dict[str, float]:
    """Train one modality in place; return figures on its validation rows."""
    table, branch = _table(recipe, name), getattr(model, name)
    if isinstance(table, BranchRecipe):
        rows, valid = read_rows(table, name)
        return train_branch(branch, rows, valid, table, rng, log, tell)
    how = TuneRecipe(**table.model_dump(exclude={"data", "encoder", "recurrent"}))
    return finetune(encoder, branch, how, rng, log, tell=tell, folder=folder)


def _check_last(last: Path, *, resume: bool) -> None:
    if resume and not last.is_file():
        raise DataError(f"--resume: there is no {last} to go on with: leave it out, or see --runs")
    if last.is_file() and not resume:
        raise DataError(
            f"{last} is of a training that was stopped: give --resume to go on, or remove it"
        )


def _told(tell: Tell, stage: str, what: str, done: int, total: int) -> None:
    tell(f"{stage}, {what}", done, total)


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
) -> Widths:
    """Train the fused head on vectors from the branches as they are now; return half widths.

    Several modalities are paired on validation clips. Of one there is nothing to fuse: the fused
    head learns on the training clips to say what the modality's own head says.
    """
    names = recipe.modalities
    model.config = replace(model.config, fused=names)
    if len(names) == 1:
        seen = pooled_vectors(model, encoder, recipe, names[0], "train")
        copy_head(model, names[0], seen, recipe.fusion, rng)
        begun = {names[0]: _begun(model, encoder, recipe, names[0], rng)}
    else:
        held = {name: pooled_vectors(model, encoder, recipe, name, "valid") for name in names}
        train_fusion(model, held, recipe.fusion, rng, log)
        begun = {
            name: _begun(model, encoder, recipe, name, rng).of_clips(~first_half(len(clips.label)))
            for name, clips in held.items()
        }
    return intervals(model, begun, recipe.fusion, rng)


def _begun(
    model: TamUlag, encoder: TextEncoder, recipe: Recipe, name: str, rng: np.random.Generator
) -> PrefixVectors:
    """Return the pooled vectors of one modality's validation clips and of beginnings of them."""
    branch: Branch = getattr(model, name)
    if name == "text" and recipe.tune is not None:
        corpora = [read_part([path], "valid", recipe.tune.form) for path in recipe.tune.valid]
        return prefix_texts(branch, encoder, corpora, rng)
    how: BranchRecipe = getattr(recipe, name)
    return prefix_rows(branch, read_rows(how, name)[1], how, rng)


def pooled_vectors(
    model: TamUlag,
    encoder: TextEncoder,
    recipe: Recipe,
    name: str,
    part: Part,
) -> Vectors:
    """Return the pooled vectors of one modality's clips."""
    if name == "text" and recipe.tune is not None:
        how = BranchRecipe(train=[], valid=[], data="", epochs=1)
        rows = _texts(read_part(getattr(recipe.tune, part), part, recipe.tune.form), encoder)
    else:
        how = getattr(recipe, name)
        rows = read_rows(how, name)[part == "valid"]
    return Vectors(contexts(getattr(model, name), rows, how), rows.labels)


def _texts(rows: Sequence[TextRow], encoder: TextEncoder) -> Rows:
    """Return sentences as rows of token states."""
    clips = text_clips(rows, encoder.encode_batch([row.text for row in rows]))
    return stacked([clip for clip in clips if "text" in clip.values], "text")
