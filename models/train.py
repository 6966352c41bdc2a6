"""Train a checkpoint: each modality's branch on its own corpus, then the fusion of all three.

Knows feature files and the model. Knows no front end and no stream. Everything random comes from
the seed of the configuration, so a run can be repeated to the same numbers on the same machine.

No corpus at hand has text, audio and vision of the same person. The branches are trained on their
own labels; the fusion is trained on clips of different people that carry nearly the same label,
with modalities left out at random. It learns how to weigh what agrees; it has never seen a
conflict.
"""

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from .checkpoint import Card, save
from .data import Clip, DataError, read_clips
from .encoder import EncoderState, Ticks
from .finetune import batches, mixed
from .metrics import mosi_metrics
from .tam_ulag import MODALITIES, Branch, ModelConfig, TamUlag, bounded

Log = Callable[[str], None]

CARRIED = 0.5
"""Share of clips that begin with the state of another clip."""
CALIBRATION = 2000
"""Pairings from which the half widths of the intervals are taken."""
VISION_PERIOD = 5
SUBSETS = np.array([[bool(bits & 4), bool(bits & 2), bool(bits & 1)] for bits in range(1, 8)])
"""Every non-empty set of present modalities, (7, M)."""


class Table(BaseModel):
    """A table of the training file; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BranchRecipe(Table):
    """How one modality's branch is trained."""

    train: list[Path] = Field(description="Feature files")
    valid: list[Path] = Field(description="Feature files; may be those of train, with groups")
    valid_groups: list[str] = Field([], description="Groups of these files that are only validated")
    data: str = Field(description="Names of the corpora, for the card")
    epochs: Annotated[int, Field(ge=1, le=500)]
    rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    decay: Annotated[float, Field(ge=0, le=1)] = 1e-3
    batch: Annotated[int, Field(ge=1, le=4096)] = 64
    still: Annotated[int, Field(ge=0, le=500)] = Field(
        0, description="Vectors into which a single picture is drawn out; 0 = none"
    )
    jitter: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="Noise on a drawn-out picture, in standard deviations of the corpus"
    )
    crop: Annotated[int, Field(ge=0, le=500)] = Field(
        0, description="Shortest random piece of a clip in vectors; 0 = whole clips"
    )


class FusionRecipe(Table):
    """How the fusion is trained."""

    steps: Annotated[int, Field(ge=1, le=100_000)] = 3000
    batch: Annotated[int, Field(ge=1, le=4096)] = 256
    rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    near: Annotated[float, Field(gt=0, le=6)] = Field(
        0.5, description="Largest distance between the labels of clips that are paired"
    )


class Recipe(Table):
    """A whole training file."""

    seed: int = 1
    text: BranchRecipe
    audio: BranchRecipe
    vision: BranchRecipe
    fusion: FusionRecipe = FusionRecipe()


@dataclass(frozen=True)
class Rows:
    """Clips of one modality, ready to be cut into batches."""

    values: list[Tensor]
    ticks: list[Tensor]
    labels: Tensor
    mean: Tensor
    spread: Tensor
    """(D,) mean and standard deviation over all vectors."""


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


def train(path: Path, out: Path, log: Log) -> dict[str, float]:
    """Train all heads as the file says and write the checkpoint.

    Args:
        path: Training file; relative paths in it count from the working directory.
        out: Checkpoint to write.
        log: Called with a line of progress.

    Returns:
        Figures on the validation rows, also written into the card.

    Raises:
        DataError: If the training file or a feature file cannot be used.
    """
    recipe = read_recipe(path)
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    model = TamUlag(ModelConfig())
    figures: dict[str, float] = {}
    valid: dict[str, Rows] = {}
    train_rows: dict[str, Rows] = {}
    for name in MODALITIES:
        chosen: BranchRecipe = getattr(recipe, name)
        train_rows[name], valid[name] = read_rows(chosen, name)
        scores = train_branch(getattr(model, name), train_rows[name], valid[name], chosen, rng, log)
        figures |= {f"{name}.{key}": value for key, value in scores.items()}
        log(f"{name}: " + "  ".join(f"{k} {v:.3f}" for k, v in scores.items()))
    interval = train_fusion(model, train_rows, valid, recipe, rng, log)
    figures |= {f"interval.{key}": value for key, value in interval.items()}
    card = Card(
        trained=dict.fromkeys(("sentiment", *MODALITIES), True),
        interval=interval,
        data={name: getattr(recipe, name).data for name in MODALITIES}
        | {"sentiment": "clips of the three with nearly equal labels, paired at random"},
        figures=figures,
    )
    save(model, card, out)
    return figures


def read_rows(recipe: BranchRecipe, name: str) -> tuple[Rows, Rows]:
    """Return the training and the validation rows of one modality.

    Raises:
        DataError: If a file cannot be used, nothing is left, or the vectors have another length.
    """
    held = set(recipe.valid_groups)
    train_clips, valid_clips = (
        [clip for file in files for clip in read_clips(file) if name in clip.values]
        for files in (recipe.train, recipe.valid)
    )
    if held:
        train_clips = [clip for clip in train_clips if clip.group not in held]
        valid_clips = [clip for clip in valid_clips if clip.group in held]
    if not (train_clips and valid_clips):
        raise DataError(
            f"{name}: {len(train_clips)} clips to train and {len(valid_clips)} to validate: "
            "name feature files that hold some"
        )
    dim = getattr(ModelConfig(), name).dim
    found = {clip.values[name].shape[1] for clip in train_clips + valid_clips}
    if found != {dim}:
        raise DataError(
            f"{name}: vectors of {sorted(found)} values where the model takes {dim}: extract again"
        )
    return _rows(train_clips, name), _rows(valid_clips, name)


def _rows(clips: Sequence[Clip], name: str) -> Rows:
    values = [torch.from_numpy(clip.values[name]) for clip in clips]
    flat = torch.cat(values)
    return Rows(
        values,
        [torch.from_numpy(clip.ticks[name]) for clip in clips],
        torch.tensor([clip.label for clip in clips]),
        flat.mean(dim=0),
        flat.std(dim=0).clamp(min=1e-3),
    )


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
    branch.encoder.mean.copy_(rows.mean)
    branch.encoder.deviation.copy_(rows.spread)
    optimiser = torch.optim.AdamW(branch.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.epochs)
    best, kept = float("inf"), {}
    for epoch in range(recipe.epochs):
        branch.train()
        carried: EncoderState | None = None
        for chosen in batches([len(v) for v in rows.values], recipe.batch, rng):
            ticks, now = _cut(rows, chosen, recipe, rng)
            state = branch.initial_state(len(chosen))
            if carried is not None:
                state = state._replace(encoder=mixed(state.encoder, carried, CARRIED, rng))
            pooled, after = branch.step(ticks, now, state)
            carried = EncoderState(*(part.detach() for part in after.encoder))
            estimate = bounded(branch.head(pooled.context)[:, 0, 0])
            loss = (estimate - rows.labels[chosen]).abs().mean()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(branch.parameters(), 1.0)
            optimiser.step()
        schedule.step()
        mae = float((predict(branch, valid, recipe) - valid.labels).abs().mean())
        if mae < best:
            best, kept = mae, {k: v.clone() for k, v in branch.state_dict().items()}
        log(f"  epoch {epoch + 1}/{recipe.epochs}: valid MAE {mae:.4f}, best {best:.4f}")
    branch.load_state_dict(kept)
    branch.eval()
    return mosi_metrics(predict(branch, valid, recipe).numpy(), valid.labels.numpy())


@torch.inference_mode()
def predict(branch: Branch, rows: Rows, recipe: BranchRecipe) -> Tensor:
    """Return the unimodal estimates (N,) of whole clips, each from the initial state."""
    return bounded(branch.head(contexts(branch, rows, recipe))[:, 0])


@torch.inference_mode()
def contexts(branch: Branch, rows: Rows, recipe: BranchRecipe) -> Tensor:
    """Return the pooled vectors (N, H) of whole clips, each from the initial state."""
    branch.eval()
    out = torch.zeros(len(rows.labels), branch.encoder.lstm.hidden_size)
    order = np.argsort([len(v) for v in rows.values], kind="stable")
    for chosen in np.array_split(order, max(1, len(order) // 256)):
        ticks, now = _cut(rows, chosen, recipe, None)
        pooled, _ = branch.step(ticks, now, branch.initial_state(len(chosen)))
        out[chosen] = pooled.context[:, 0]
    return out


def _cut(
    rows: Rows, chosen: np.ndarray, recipe: BranchRecipe, rng: np.random.Generator | None
) -> tuple[Ticks, Tensor]:
    """Return the chosen clips as one batch, and the tick at which each is scored: its end."""
    pieces = [_piece(rows, int(index), recipe, rng) for index in chosen]
    values = nn.utils.rnn.pad_sequence([piece for piece, _ in pieces], batch_first=True)
    time = nn.utils.rnn.pad_sequence([ticks for _, ticks in pieces], batch_first=True)
    lengths = torch.tensor([len(piece) for piece, _ in pieces])
    mask = torch.arange(values.shape[1]) < lengths.unsqueeze(-1)
    return Ticks(values, mask, time, time + 1), time.amax(dim=1, keepdim=True) + 1


def _piece(
    rows: Rows, index: int, recipe: BranchRecipe, rng: np.random.Generator | None
) -> tuple[Tensor, Tensor]:
    """Return a clip's vectors and ticks; in training (`rng` given) in one of many variants."""
    values, ticks = rows.values[index], rows.ticks[index]
    if recipe.still:
        count = recipe.still if rng is None else int(rng.integers(1, recipe.still + 1))
        values, ticks = values[:1].expand(count, -1), torch.arange(count) * VISION_PERIOD
        if rng is not None:
            noise = rng.standard_normal((count, values.shape[1])).astype(np.float32)
            values = values + recipe.jitter * rows.spread * torch.from_numpy(noise)
    elif recipe.crop and rng is not None:
        count = int(rng.integers(min(recipe.crop, len(values)), len(values) + 1))
        first = int(rng.integers(0, len(values) - count + 1))
        values, ticks = values[first : first + count], ticks[first : first + count]
    return values, ticks


def train_fusion(
    model: TamUlag,
    rows: dict[str, Rows],
    valid: dict[str, Rows],
    recipe: Recipe,
    rng: np.random.Generator,
    log: Log,
) -> dict[str, float]:
    """Train the fused head on paired clips; return the half width of each subset's interval.

    The branches stay as they are, so the unimodal heads do too.
    """
    fusion = recipe.fusion
    inputs = {n: contexts(getattr(model, n), rows[n], getattr(recipe, n)) for n in MODALITIES}
    checks = {n: contexts(getattr(model, n), valid[n], getattr(recipe, n)) for n in MODALITIES}
    parameters = [*model.fusion.parameters(), *model.head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=fusion.rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, fusion.steps)
    model.train()
    for step in range(fusion.steps):
        index, label = paired({n: rows[n].labels for n in MODALITIES}, fusion, rng)
        present = torch.from_numpy(rng.choice(SUBSETS, len(label)))
        estimate = fused(model, {n: inputs[n][index[n]] for n in MODALITIES}, present)
        loss = (estimate - label).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if (step + 1) % 500 == 0:
            log(f"  fusion step {step + 1}/{fusion.steps}: MAE {loss.item():.4f}")
    model.eval()
    return intervals(model, checks, {n: valid[n].labels for n in MODALITIES}, fusion, rng)


def paired(
    labels: dict[str, Tensor], fusion: FusionRecipe, rng: np.random.Generator
) -> tuple[dict[str, Tensor], Tensor]:
    """Draw clips of the three modalities whose labels lie near each other.

    Returns:
        Per modality the indices (B,), and the mean of the three labels (B,).
    """
    wanted = rng.uniform(-2.5, 2.5, fusion.batch)
    index, drawn = {}, []
    for name in MODALITIES:
        order = np.argsort(labels[name].numpy(), kind="stable")
        rising = labels[name].numpy()[order]
        first = np.searchsorted(rising, wanted - fusion.near, side="left")
        last = np.searchsorted(rising, wanted + fusion.near, side="right")
        # Where nothing is near, this is the nearest clip or the one next to it.
        place = first + np.floor(rng.random(fusion.batch) * np.maximum(1, last - first))
        chosen = order[place.astype(np.int64).clip(0, len(order) - 1)]
        index[name] = torch.from_numpy(chosen)
        drawn.append(labels[name][index[name]])
    return index, torch.stack(drawn).mean(dim=0)


def fused(model: TamUlag, vectors: dict[str, Tensor], present: Tensor) -> Tensor:
    """Return the fused estimates (B,) of pooled vectors (B, H) with presence (B, M)."""
    contexts_BNH = [vectors[name].unsqueeze(1) for name in MODALITIES]
    vector, _ = model.fusion(contexts_BNH, present.unsqueeze(1))
    return bounded(model.head(vector)[:, 0, 0])


@torch.inference_mode()
def intervals(
    model: TamUlag,
    vectors: dict[str, Tensor],
    labels: dict[str, Tensor],
    fusion: FusionRecipe,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Return per subset the split conformal half width at 90 % on validation residuals.

    q = the ceil(0.9 (n + 1)) / n quantile of |estimate - label| (Vovk et al. 2005; Lei et al. 2018)
    """
    index, label = paired(labels, fusion.model_copy(update={"batch": CALIBRATION}), rng)
    half = {}
    for subset in SUBSETS:
        present = torch.from_numpy(subset).expand(len(label), -1)
        estimate = fused(model, {n: vectors[n][index[n]] for n in MODALITIES}, present)
        residual = (estimate - label).abs().sort().values
        rank = min(len(residual), int(np.ceil(0.9 * (len(residual) + 1))))
        names = [name for name, there in zip(MODALITIES, subset, strict=True) if there]
        half["+".join(names)] = round(float(residual[rank - 1]), 4)
    return half
