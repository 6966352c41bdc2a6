"""Clips of one modality as batches: read, cut, drawn out, varied.

Knows feature files and tensors. Knows no loss and no optimiser.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ..data.clips import Clip, DataError, read_clips
from ..nn.branch import Branch
from ..nn.config import preset
from ..nn.encoder import Ticks

VISION_PERIOD = 5


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
    offset: Annotated[float, Field(ge=0, le=3)] = Field(
        0.0, description="Noise that is the same for a whole clip, in standard deviations"
    )
    classes: Annotated[float, Field(ge=0, le=3)] = Field(
        0.0, description="Weight of telling the seven classes of Acc7 beside the sentiment"
    )
    balance: bool = Field(
        False, description="Weigh clips so that negative and positive ones count the same in all"
    )
    average: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Decay per step of the moving average of the weights, which is kept"
    )
    choose: bool = Field(
        True, description="Keep the epoch with the lowest validation MAE; false = the last one"
    )


@dataclass(frozen=True)
class Rows:
    """Clips of one modality, ready to be cut into batches."""

    values: list[Tensor]
    ticks: list[Tensor]
    labels: Tensor
    mean: Tensor
    spread: Tensor
    """(D,) mean and standard deviation over all vectors."""
    weight: Tensor
    """(N,) what each clip counts where negative and positive are balanced; mean 1."""
    groups: list[str]
    """N names; clips of one name are of one person."""


def read_rows(recipe: BranchRecipe, name: str) -> tuple[Rows, Rows]:
    """Return the training and the validation rows of one modality.

    Raises:
        DataError: If a file cannot be used or is trained on and validated, nothing is left, or the
            vectors have another length.
    """
    held = set(recipe.valid_groups)
    _refuse_shared(recipe, name)
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
    dim = getattr(preset("stream"), name).dim
    found = {clip.values[name].shape[1] for clip in train_clips + valid_clips}
    if found != {dim}:
        raise DataError(
            f"{name}: vectors of {sorted(found)} values where the model takes {dim}: extract again"
        )
    return stacked(train_clips, name), stacked(valid_clips, name)


def _refuse_shared(recipe: BranchRecipe, name: str) -> None:
    seen = {path.resolve() for path in recipe.train}
    shared = [path for path in recipe.valid if path.resolve() in seen]
    if shared and not recipe.valid_groups:
        raise DataError(
            f"{name}: {', '.join(map(str, shared))} is given to train on and as valid: give two "
            "files, or valid_groups, the groups that are only validated"
        )


def stacked(clips: Sequence[Clip], name: str) -> Rows:
    """Return clips that all hold the modality as rows."""
    values = [torch.from_numpy(clip.values[name]) for clip in clips]
    labels = torch.tensor([clip.label for clip in clips])
    flat = torch.cat(values)
    return Rows(
        values,
        [torch.from_numpy(clip.ticks[name]) for clip in clips],
        labels,
        flat.mean(dim=0),
        flat.std(dim=0).clamp(min=1e-3),
        _balanced(labels),
        [clip.group for clip in clips],
    )


def _balanced(labels: Tensor) -> Tensor:
    """Return weights under which negative and positive labels count the same in all; mean 1."""
    weight = torch.ones_like(labels)
    for side in (labels < 0, labels > 0):
        weight[side] = (labels != 0).float().sum() / 2 / side.float().sum().clamp(min=1)
    return weight / weight.mean()


def standardise(branch: Branch, rows: Rows) -> None:
    """Set a branch's level, mean and deviation from its training rows."""
    encoder = branch.encoder
    if encoder.centred:
        encoder.level.copy_(rows.mean[: encoder.centred])
    level = encoder.initial_state(1).level
    seen = torch.cat([encoder.centre(v[None], level)[0][0] for v in rows.values])
    encoder.mean.copy_(seen.mean(dim=0))
    encoder.deviation.copy_(seen.std(dim=0).clamp(min=1e-3))


@torch.inference_mode()
def contexts(
    branch: Branch, rows: Rows, recipe: BranchRecipe, levels: Tensor | None = None
) -> Tensor:
    """Return the pooled vectors (N, H) of whole clips, each from the initial state.

    `levels` (N, C + 1) replaces that of the initial state.
    """
    branch.eval()
    out = torch.zeros(len(rows.labels), branch.size)
    order = np.argsort([len(v) for v in rows.values], kind="stable")
    for chosen in np.array_split(order, max(1, len(order) // 256)):
        ticks, now = cut(rows, chosen, recipe, None)
        state = branch.initial_state(len(chosen))
        if levels is not None:
            state = state._replace(encoder=state.encoder._replace(level=levels[chosen]))
        pooled, _ = branch.step(ticks, now, state)
        out[chosen] = pooled.context[:, 0]
    return out


def cut(
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
    if recipe.offset and rng is not None:
        noise = rng.standard_normal((1, values.shape[1])).astype(np.float32)
        values = values + recipe.offset * rows.spread * torch.from_numpy(noise)
    return values, ticks
