"""Clips of one modality for training its branch: read, standardised, varied, and pooled.

Knows corpora and a branch. Knows no loss and no optimiser.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.batches import ends, padded
from ..data.clips import Clip, DataError, read_clips
from ..data.corpus import Corpus, Integers, from_clips
from ..data.validation_split import split_clips
from ..nn.branch import Branch
from ..nn.config import preset
from ..nn.constants import VISION_TICKS
from ..nn.encoder import Encoder, Ticks
from .heads_recipe import BranchRecipe

CHUNK = 256
"""Clips that are pooled together."""


class Variation(NamedTuple):
    """How training varies the clips of one modality."""

    recipe: BranchRecipe
    deviation: Tensor
    """(D,) of all vectors of the training clips."""
    rng: np.random.Generator


def read_corpora(recipe: BranchRecipe, name: str) -> tuple[Corpus, Corpus]:
    """Return the training and the validation clips that have a modality.

    Raises:
        DataError: If a file cannot be used or is trained on and validated, nothing is left, or the
            vectors have another length.
    """
    try:
        parts = split_clips(recipe.train, recipe.valid, recipe.valid_groups)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    train, valid = ([c for c in parts[part] if name in c.values] for part in ("train", "valid"))
    if not (train and valid):
        raise DataError(
            f"{name}: {len(train)} clips to train and {len(valid)} to validate: "
            "name feature files that hold some"
        )
    _check_size([*train, *valid], name)
    return from_clips(train, [name]), from_clips(valid, [name])


def read_files(files: Sequence[Path], name: str) -> Corpus:
    """Return all clips of feature files that have a modality.

    Raises:
        DataError: If a file cannot be used, or the vectors have another length.
    """
    clips = [clip for file in files for clip in read_clips(file) if name in clip.values]
    _check_size(clips, name)
    return from_clips(clips, [name])


def _check_size(clips: Sequence[Clip], name: str) -> None:
    size = getattr(preset("stream"), name).dim
    found = {clip.values[name].shape[1] for clip in clips}
    if found != {size}:
        raise DataError(
            f"{name}: vectors of {sorted(found)} values where the model takes {size}: extract again"
        )


def repeat_pictures(corpus: Corpus, name: str, count: int) -> Corpus:
    """Return clips that each repeat their first vector `count` times; 0 returns them as they are.

    A single picture becomes the sequence that a camera would give of a still face.
    """
    if not count:
        return corpus
    time = torch.arange(count) * VISION_TICKS
    values = [steps[:1].expand(count, -1) for steps in corpus.values[name]]
    return replace(corpus, values={name: values}, ticks={name: [time] * len(corpus)})


def standardise(encoder: Encoder, clips: Sequence[Tensor], *, correction: int = 1) -> None:
    """Set the level, mean and deviation of an encoder from its training vectors.

    Args:
        encoder: Of one modality.
        clips: (T, D) of each clip.
        correction: Subtracted from the number of vectors in the deviation's denominator.
    """
    flat = torch.cat(list(clips))
    if encoder.centred:
        encoder.level.copy_(flat.mean(dim=0)[: encoder.centred])
        level = encoder.initial_state(1).level
        flat = torch.cat([encoder.centre(x[None], level)[0][0] for x in clips if len(x)])
    encoder.mean.copy_(flat.mean(dim=0))
    encoder.deviation.copy_(flat.std(dim=0, correction=correction).clamp(min=1e-3))


def contexts(branch: Branch, corpus: Corpus, name: str, levels: Tensor | None = None) -> Tensor:
    """Return the pooled vectors (N, H) of whole clips, each from the initial state.

    `levels` (N, C + 1) replaces that of the initial state.
    """
    return pooled(branch, corpus, name, levels)[0]


@torch.inference_mode()
def pooled(
    branch: Branch, corpus: Corpus, name: str, levels: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return what `contexts` does, and of how many states each is, (N,) int64."""
    branch.eval()
    out = torch.zeros(len(corpus), branch.size)
    steps = torch.zeros(len(corpus), dtype=torch.int64)
    order = np.argsort([len(steps) for steps in corpus.values[name]], kind="stable")
    for rows in np.array_split(order, max(1, len(order) // CHUNK)):
        ticks, now = branch_batch(corpus, name, rows)
        state = branch.initial_state(len(rows))
        if levels is not None:
            state = state._replace(encoder=state.encoder._replace(level=levels[rows]))
        found, _ = branch.step(ticks, now, state)
        out[rows] = found.context[:, 0]
        steps[rows] = (found.weight[:, 0] > 0).sum(dim=-1)
    return out, steps


def branch_batch(
    corpus: Corpus, name: str, rows: Integers, variation: Variation | None = None
) -> tuple[Ticks, Tensor]:
    """Return clips as one batch, and the tick (B, 1) at which each is scored: its end."""
    pairs = [(corpus.values[name][row], corpus.ticks[name][row]) for row in rows]
    if variation is not None:
        pairs = [vary(values, time, variation) for values, time in pairs]
    ticks = padded(pairs)
    return ticks, ends([ticks], len(rows))


def vary(values: Tensor, time: Tensor, variation: Variation) -> tuple[Tensor, Tensor]:
    """Return a clip's vectors (T, D) and ticks (T,) in one of many variants."""
    recipe, deviation, rng = variation
    if recipe.still:
        count = int(rng.integers(1, recipe.still + 1))
        noise = rng.standard_normal((count, values.shape[1])).astype(np.float32)
        values = values[:1].expand(count, -1) + recipe.jitter * deviation * torch.from_numpy(noise)
        time = torch.arange(count) * VISION_TICKS
    elif recipe.crop:
        most = min(len(values), recipe.longest or len(values))
        count = int(rng.integers(min(recipe.crop, most), most + 1))
        first = int(rng.integers(0, len(values) - count + 1))
        values, time = values[first : first + count], time[first : first + count]
    if recipe.offset:
        noise = rng.standard_normal((1, values.shape[1])).astype(np.float32)
        values = values + recipe.offset * deviation * torch.from_numpy(noise)
    return values, time
