"""Compare the scales of a checkpoint with one width per level, and with other densities.

Knows a model with scales, the recipe of its training and pooled vectors of clips and their
beginnings. Knows no stream.

Everything is measured on people of the validation clips that neither heads nor scales were fitted
on: the second half. What a comparison fits it fits on the first half, as the training did.

Shapes: R rows (clips and beginnings of them), C columns, M modalities.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.clips import DataError
from ..evaluation.conformal import LEVELS, Residuals, levels, quantiles, widths
from ..evaluation.metrics import mosi_metrics
from ..nn.tam_ulag import MODALITIES, TamUlag, bounded, weighed
from ..runtime.checkpoint import load
from ..text.text_encoder import encoder_for
from ..training.heads_recipe import HeadsRecipe
from ..training.recipe_file import load_recipe
from ..training.train_fusion import PrefixVectors, drawn_rows
from ..training.train_heads import pooled_vectors, prefixes_of
from ..training.train_scales import balance, errors, scales_of

TURNS = 200
"""Steps of the fit of two to four numbers."""
START_FREEDOM = 5.0
"""Degrees of freedom at which the fit of Student's density starts."""

Density = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(error (R,), its scale (R,), log of the degrees of freedom ()) -> -log of the density (R,)."""


class HeldOut(NamedTuple):
    """A checkpoint with scales, and the validation clips of its training file."""

    model: TamUlag
    clips: dict[str, PrefixVectors]
    part: dict[str, Tensor]
    """Per modality the quarter of each row, (R,) int64: 0 and 1 have fitted the scales."""
    near: float
    """Largest distance between the labels of clips that are paired."""


class ScaleRow(NamedTuple):
    """One head with one kind of width."""

    head: str
    width: str
    """`level`: one for each level of how much was heard; `scale`: the checkpoint's."""
    n: int
    """Clips that it is measured on, each with its beginnings."""
    laplace: float
    """Mean negative log-likelihood of the error under this density, in nats; corpora count the
    same. Less is better."""
    student: float
    gaussian: float
    half: float
    """Median half width of the 90 % interval, calibrated on one quarter for the other."""
    covered: float
    """Share of labels inside it; corpora count the same."""


class PairRow(NamedTuple):
    """One way to weigh heads on clips of different people with nearly equal labels."""

    present: str
    way: str
    """`shares`, or `shares / (1 + scale^2)` as the checkpoint has it."""
    MAE: float
    Corr: float
    Acc2: float
    """Negative against positive, labels of 0 left out."""


def open_held_out(checkpoint: str, path: Path, rng: np.random.Generator) -> HeldOut:
    """Load a checkpoint and run its branches over the validation clips of its training file.

    Args:
        checkpoint: Name or path.
        path: Training file; relative paths in it count from the working directory.
        rng: Draws the beginnings.

    Raises:
        CheckpointError: If the checkpoint cannot be used.
        DataError: If it has no scales, or the file cannot be used or names no head that is trained.
    """
    model, card = load(checkpoint)
    if model.scales is None:
        raise DataError(
            f"checkpoint {checkpoint} has no scales: train one with scales = true in [fusion]"
        )
    recipe = load_recipe(path, HeadsRecipe)
    names = [name for name in recipe.tables if card.trained[name]]
    if not names:
        raise DataError(f"checkpoint {checkpoint} has no trained head of {path}: give its own file")
    encoder = encoder_for(checkpoint)
    clips = {name: prefixes_of(model, encoder, recipe, name, rng) for name in names}
    part = {
        name: pooled_vectors(model, encoder, recipe, name, "valid").part[rows.clip]
        for name, rows in clips.items()
    }
    return HeldOut(model, clips, part, recipe.fusion.near)


def compare(held: HeldOut, rng: np.random.Generator) -> tuple[list[ScaleRow], list[PairRow]]:
    """Compare widths for each head, and ways to weigh heads for each set of several.

    Args:
        held: As `open_held_out` returns it.
        rng: Draws the pairs.
    """
    rows = [row for name in held.clips for row in _of_head(held, name)]
    later = {n: clips.of_rows(held.part[n] >= 2) for n, clips in held.clips.items()}
    sets = [s for size in (2, 3) for s in combinations(later, size)]
    pairs = [row for names in sets for row in _of_pairs(held, later, names, rng)]
    return rows, pairs


def _of_head(held: HeldOut, name: str) -> list[ScaleRow]:
    clips, part = held.clips[name], held.part[name]
    with torch.no_grad():
        error = errors(held.model, name, clips)
    level, scale = levels(clips.steps, name), _scales(held.model, name, clips)
    ones = torch.ones_like(scale)
    columns = {
        "level": torch.nn.functional.one_hot(level, LEVELS).float(),
        "scale": torch.stack([ones, scale.log()], dim=1),
    }
    halves = {
        "level": _crossed(error, ones, level, clips, part, name),
        "scale": _crossed(error, scale, None, clips, part, name),
    }
    later = part >= 2
    weight = balance(clips.source[later])
    found = []
    for width, half in halves.items():
        laplace, student, gaussian = (
            _unlikelihood(columns[width], error, clips.source, part < 2, density)
            for density in DENSITIES
        )
        found.append(
            ScaleRow(
                head=name,
                width=width,
                n=len(clips.clip[later].unique()),
                laplace=laplace,
                student=student,
                gaussian=gaussian,
                half=float(half[later].median()),
                covered=float((weight * (error <= half)[later]).sum()),
            )
        )
    return found


def _crossed(
    error: Tensor,
    scale: Tensor,
    level: Tensor | None,
    clips: PrefixVectors,
    part: Tensor,
    name: str,
) -> Tensor:
    """Return half widths (R,): in each of the quarters 2 and 3 those that the other one gives.

    Args:
        error: (R,).
        scale: (R,) what a half width is a multiple of.
        level: (R,) levels that have a half width each; None: all rows have the same.
        clips: The rows.
        part: (R,) their quarters.
        name: Their modality.
    """
    half = torch.full_like(error, torch.nan)
    for here, other in ((2, 3), (3, 2)):
        rows, measured = part == other, part == here
        found = Residuals(
            (error / scale)[rows],
            torch.zeros_like(part)[rows] if level is None else level[rows],
            clips.clip[rows].unsqueeze(1),
            clips.source[rows].unsqueeze(1),
        )
        if level is None:
            size = quantiles({name: found}).quantile.get(name, math.nan)
            half[measured] = size * scale[measured]
        else:
            card = widths({name: found})
            by_level = [*card.begun.get(name, []), card.interval.get(name, math.nan)]
            by_level = by_level if len(by_level) == LEVELS else [math.nan] * LEVELS
            half[measured] = torch.tensor(by_level)[level[measured]]
    return half


def _unlikelihood(
    columns: Tensor, error: Tensor, source: Tensor, first: Tensor, density: Density
) -> float:
    """Fit log scale = columns (R, C) x numbers (C,) on the first half; measure it on the second."""
    fitted, weight = columns[first], balance(source[first])
    size = torch.linalg.lstsq(fitted, error[first].clamp(min=1e-3).log().unsqueeze(1)).solution
    numbers = size[:, 0].detach().clone().requires_grad_()
    freedom = torch.tensor(math.log(START_FREEDOM), requires_grad=True)
    optimiser = torch.optim.LBFGS([numbers, freedom], max_iter=TURNS, line_search_fn="strong_wolfe")

    def step() -> Tensor:
        optimiser.zero_grad()
        loss = (weight * density(error[first], (fitted @ numbers).exp(), freedom)).sum()
        loss.backward()
        return loss

    optimiser.step(step)
    with torch.no_grad():
        scale = (columns[~first] @ numbers).exp()
        found = density(error[~first], scale, freedom)
        return float((balance(source[~first]) * found).sum())


def _laplace(error: Tensor, scale: Tensor, _: Tensor) -> Tensor:
    return torch.log(2 * scale) + error / scale


def _student(error: Tensor, scale: Tensor, log_freedom: Tensor) -> Tensor:
    freedom = log_freedom.exp()
    norm = torch.lgamma(freedom / 2) - torch.lgamma((freedom + 1) / 2)
    norm = norm + torch.log(freedom * math.pi) / 2 + scale.log()
    return norm + (freedom + 1) / 2 * torch.log1p((error / scale).square() / freedom)


def _gaussian(error: Tensor, scale: Tensor, _: Tensor) -> Tensor:
    return scale.log() + math.log(2 * math.pi) / 2 + (error / scale).square() / 2


DENSITIES: tuple[Density, ...] = (_laplace, _student, _gaussian)
"""In the order of the columns of `ScaleRow`."""


@torch.inference_mode()
def _of_pairs(
    held: HeldOut,
    clips: Mapping[str, PrefixVectors],
    names: Sequence[str],
    rng: np.random.Generator,
) -> list[PairRow]:
    model = held.model
    rows = drawn_rows([clips[name] for name in names], held.near, rng)
    parts = {name: clips[name].of_rows(chosen) for name, chosen in zip(names, rows, strict=True)}
    label = torch.stack([part.label for part in parts.values()]).mean(dim=0)
    heads = torch.zeros(len(label), 1, len(MODALITIES))
    scale = torch.ones_like(heads)
    for name, part in parts.items():
        place = MODALITIES.index(name)
        heads[:, 0, place] = bounded(getattr(model, name).head(part.context)[:, 0])
        scale[:, 0, place] = _scales(model, name, part)
    present = torch.tensor([name in names for name in MODALITIES]).expand_as(heads)
    found = []
    for way, divisor in (("shares", None), ("shares / (1 + scale^2)", scale)):
        estimate, _ = weighed(heads, present, model.config.shares, divisor)
        figures = mosi_metrics(estimate[:, 0].numpy(), label.numpy())
        values = (figures[key] for key in ("MAE", "Corr", "Acc2_non0"))
        found.append(PairRow("+".join(names), way, *values))
    return found


def _scales(model: TamUlag, name: str, clips: PrefixVectors) -> Tensor:
    assert model.scales is not None
    # Out of inference mode, so that what is fitted to them may be differentiated.
    return scales_of(model.scales, name, clips).clone()
