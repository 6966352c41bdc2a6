"""Train the shipped checkpoint: a branch per modality on its own corpus, then the fused head.

Knows feature files, CSVs of texts and the model. Knows no front end and no stream.

Each head has a random stream of its own that comes from the seed, so `only` gives the same numbers
as a run of all heads, on the same machine.
"""

import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, ValidationError, model_validator
from torch import Tensor, nn

from .branch import Branch
from .checkpoint import Card, load, load_tuned, save
from .data import DataError, read_labelled, text_clips
from .encoder import EncoderState
from .finetune import TuneRecipe, batches, finetune, mixed
from .metrics import mosi_metrics
from .options import preset
from .pairing import FusionRecipe, Vectors, train_fusion
from .rows import BranchRecipe, Rows, Table, contexts, cut, read_rows, stacked, standardise
from .tam_ulag import MODALITIES, TamUlag, bounded
from .text import TextEncoder

Log = Callable[[str], None]

CARRIED = 0.5
"""Share of clips that begin with the state of another clip."""
STAGES = (*MODALITIES, "sentiment")


class TuneTable(Table):
    """How the text encoder's last layers and the text branch are trained; see `TuneRecipe`."""

    train: list[Path]
    valid: list[Path]
    data: str
    layers: Annotated[int, Field(ge=1, le=6)] = 6
    epochs: Annotated[int, Field(ge=1, le=100)] = 5
    batch: Annotated[int, Field(ge=1, le=1024)] = 32
    encoder_rate: Annotated[float, Field(gt=0, le=1)] = 1e-4
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.85
    head_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    bare: Annotated[float, Field(ge=0, le=1)] = 0.3
    prefix: Annotated[float, Field(ge=0, le=1)] = 0.1


class Recipe(Table):
    """A whole training file."""

    seed: int = 1
    tune: TuneTable | None = None
    """Text from CSVs, the text encoder trained as well; instead of `text`."""
    text: BranchRecipe | None = None
    """Text from feature files, the text encoder as it is; instead of `tune`."""
    audio: BranchRecipe
    vision: BranchRecipe
    fusion: FusionRecipe = FusionRecipe()

    @model_validator(mode="after")
    def _one_text(self) -> "Recipe":
        if (self.tune is None) == (self.text is None):
            raise ValueError("give one of the tables [tune] and [text]")
        return self


def read_recipe(path: Path) -> Recipe:
    """Read a training file.

    Raises:
        DataError: If it cannot be read, or for an unknown key or a value that is not allowed.
    """
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise DataError(f"{path}: {key} = {first['input']!r}: {first['msg']}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path} cannot be read as a training file: {error}") from error


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
        base: Checkpoint that the other heads are taken from; None: they stay untrained.

    Returns:
        Figures on the validation rows, also written into the card.

    Raises:
        DataError: If the training file or a feature file cannot be used.
        CheckpointError: If the base cannot be used.
    """
    recipe = read_recipe(path)
    torch.manual_seed(recipe.seed)
    stages = {stage for stage in STAGES if stage in only}
    model, card, tuned = _beginning(base, stages)
    trained = card.trained | dict.fromkeys(stages, True)
    figures = {k: v for k, v in card.figures.items() if k.partition(".")[0] not in stages}
    data, interval = dict(card.data), dict(card.interval)
    encoder = TextEncoder(tuned=tuned)
    for number, stage in enumerate(STAGES):
        if stage not in stages:
            continue
        rng = np.random.default_rng((recipe.seed, number))
        torch.manual_seed(recipe.seed * 10 + number)
        if stage == "sentiment":
            interval = _fuse(model, encoder, recipe, rng, log)
            figures |= {f"sentiment.interval.{key}": value for key, value in interval.items()}
            data[stage] = "clips of the three with nearly equal labels, paired at random"
        elif stage == "text" and recipe.tune is not None:
            values = recipe.tune.model_dump(exclude={"data"})
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
    card = Card(trained=trained, interval=interval, data=data, figures=figures)
    save(model, card, out, tuned)
    return figures


def _beginning(
    base: str | None, stages: Collection[str]
) -> tuple[TamUlag, Card, dict[str, Tensor]]:
    """Return the model to begin with, its card, and what its text encoder differs in.

    A head that is to be trained begins with fresh weights whatever the base holds of it, and so
    does the text encoder.
    """
    model = TamUlag(preset("stream"))
    if base is None:
        return model, Card(trained=dict.fromkeys(STAGES, False)), {}
    known, card = load(base)
    parts = {"fusion": "sentiment", "head": "sentiment"}
    kept = {
        name: value
        for name, value in known.state_dict().items()
        if parts.get(first := name.partition(".")[0], first) not in stages
    }
    model.load_state_dict(model.state_dict() | kept)
    return model, card, {} if "text" in stages else load_tuned(base)


def _fuse(
    model: TamUlag, encoder: TextEncoder, recipe: Recipe, rng: np.random.Generator, log: Log
) -> dict[str, float]:
    """Train the fused head on the validation clips' vectors from the branches as they are now."""
    held: dict[str, Vectors] = {}
    for name in MODALITIES:
        if name == "text" and recipe.tune is not None:
            how = BranchRecipe(train=[], valid=[], data="", epochs=1)
            rows = _texts(recipe.tune.valid, encoder)
        else:
            how = getattr(recipe, name)
            rows = read_rows(how, name)[1]
        held[name] = Vectors(contexts(getattr(model, name), rows, how), rows.labels)
    return train_fusion(model, held, recipe.fusion, rng, log)


def _texts(files: Sequence[Path], encoder: TextEncoder) -> Rows:
    """Return the sentences of CSVs as rows of token states."""
    rows = [row for path in files for row in read_labelled(path)]
    clips = text_clips(rows, encoder.encode_batch([row.text for row in rows]))
    return stacked([clip for clip in clips if "text" in clip.values], "text")


def train_branch(
    branch: Branch,
    rows: Rows,
    valid: Rows,
    recipe: BranchRecipe,
    rng: np.random.Generator,
    log: Log,
) -> dict[str, float]:
    """Train one modality with the L1 loss of the paper; keep the epoch with the best valid MAE.

    Half of the clips begin with the state in which another clip ended, so that a stream of many
    minutes is not outside of what the encoder has seen.
    """
    standardise(branch, rows)
    classes = nn.Linear(branch.size, 7)
    parameters = [*branch.parameters(), *classes.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=recipe.rate, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.epochs)
    average = {name: value.clone() for name, value in branch.state_dict().items()}
    best, kept = float("inf"), average
    for epoch in range(recipe.epochs):
        branch.train()
        carried: EncoderState | None = None
        for chosen in batches([len(v) for v in rows.values], recipe.batch, rng):
            ticks, now = cut(rows, chosen, recipe, rng)
            state = branch.initial_state(len(chosen))
            if carried is not None:
                state = state._replace(encoder=mixed(state.encoder, carried, CARRIED, rng))
            pooled, after = branch.step(ticks, now, state)
            carried = EncoderState(*(part.detach() for part in after.encoder))
            label = rows.labels[chosen]
            weight = rows.weight[chosen] if recipe.balance else torch.ones_like(label)
            estimate = bounded(branch.head(pooled.context)[:, 0, 0])
            loss = (weight * (estimate - label).abs()).mean()
            if recipe.classes:
                target = label.round().long() + 3
                logits = classes(pooled.context[:, 0])
                loss = loss + recipe.classes * nn.functional.cross_entropy(logits, target)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            for name, value in branch.state_dict().items():
                average[name].lerp_(value, 1 - recipe.average)
        schedule.step()
        mae = _with(branch, average, valid, recipe)
        if mae < best:
            best, kept = mae, {name: value.clone() for name, value in average.items()}
        log(f"  epoch {epoch + 1}/{recipe.epochs}: valid MAE {mae:.4f}, best {best:.4f}")
    branch.load_state_dict(kept)
    branch.eval()
    return mosi_metrics(predict(branch, valid, recipe).numpy(), valid.labels.numpy())


def _with(
    branch: Branch, weights: Mapping[str, Tensor], valid: Rows, recipe: BranchRecipe
) -> float:
    """Return the valid MAE of other weights; the branch keeps its own."""
    own = {name: value.clone() for name, value in branch.state_dict().items()}
    branch.load_state_dict(weights)
    mae = float((predict(branch, valid, recipe) - valid.labels).abs().mean())
    branch.load_state_dict(own)
    return mae


@torch.inference_mode()
def predict(branch: Branch, rows: Rows, recipe: BranchRecipe) -> Tensor:
    """Return the unimodal estimates (N,) of whole clips, each from the initial state."""
    return bounded(branch.head(contexts(branch, rows, recipe))[:, 0])
