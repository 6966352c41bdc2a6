"""Train the fused head on clips of different people that carry nearly the same label.

Knows pooled vectors of one to three modalities. Knows no feature file and no stream.

It learns how to weigh what agrees; it has never seen a conflict.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from .data import DataError
from .rows import Table
from .tam_ulag import MODALITIES, TamUlag, bounded

Log = Callable[[str], None]

CALIBRATION = 2000
"""Pairings from which the half widths of the intervals are taken."""
SUBSETS = np.array([[bool(bits & 4), bool(bits & 2), bool(bits & 1)] for bits in range(1, 8)])
"""Every non-empty set of present modalities, (7, M)."""


class FusionRecipe(Table):
    """How the fusion is trained."""

    steps: Annotated[int, Field(ge=1, le=100_000)] = 3000
    batch: Annotated[int, Field(ge=1, le=4096)] = 256
    rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    decay: Annotated[float, Field(ge=0, le=1)] = 1e-2
    near: Annotated[float, Field(gt=0, le=6)] = Field(
        0.5, description="Largest distance between the labels of clips that are paired"
    )


BLOCK = 60
"""Rows that stay together in halving: an actor's or a video's, more or less."""


@dataclass(frozen=True)
class Vectors:
    """The pooled vectors of one modality's clips."""

    context: Tensor
    """(N, H) float32."""
    label: Tensor
    """(N,) sentiment."""


def halves(vectors: Vectors) -> tuple[Vectors, Vectors]:
    """Split rows into two parts by alternating blocks."""
    count = len(vectors.label)
    even = torch.arange(count) // max(1, min(BLOCK, count // 2)) % 2 == 0
    return (
        Vectors(vectors.context[even], vectors.label[even]),
        Vectors(vectors.context[~even], vectors.label[~even]),
    )


def train_fusion(
    model: TamUlag,
    held: Mapping[str, Vectors],
    recipe: FusionRecipe,
    rng: np.random.Generator,
    log: Log,
) -> dict[str, float]:
    """Train the fused head on paired clips; return the half width of each subset's interval.

    The branches stay as they are, so the unimodal heads do too. One half of the clips trains, the
    other gives the intervals.

    Args:
        model: Its `fusion` and `head` are trained.
        held: Clips that no branch was trained on: on its own training clips a branch looks surer
            than it is, and the fused head would believe the one that has overfitted most.
        recipe: How.
        rng: Random stream.
        log: Called with a line of progress.

    Raises:
        DataError: If a modality has fewer than two clips.
    """
    for name, vectors in held.items():
        if len(vectors.label) < 2:
            raise DataError(f"{name}: {len(vectors.label)} validation clips: the fusion needs two")
    split = {name: halves(vectors) for name, vectors in held.items()}
    train, valid = ({name: pair[side] for name, pair in split.items()} for side in (0, 1))
    optimiser, schedule = _optimiser(model, recipe)
    subsets = _subsets(held)
    model.train()
    for step in range(recipe.steps):
        drawn, label = paired(train, recipe, rng)
        present = torch.from_numpy(rng.choice(subsets, len(label)))
        loss = (fused(model, drawn, present) - label).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if (step + 1) % 500 == 0:
            log(f"  fusion step {step + 1}/{recipe.steps}: MAE {loss.item():.4f}")
    model.eval()
    return intervals(model, valid, recipe, rng)


def copy_head(
    model: TamUlag,
    name: str,
    seen: Vectors,
    held: Vectors,
    recipe: FusionRecipe,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Train the fused head to say what the head of the only modality says.

    Args:
        model: Its `fusion` and `head` are trained.
        name: The modality.
        seen: Clips on which it learns.
        held: Clips that the branch was not trained on.
        recipe: How; `near` does not matter.
        rng: Random stream.

    Returns:
        The half width of the 90 % interval on all of `held`.
    """
    optimiser, schedule = _optimiser(model, recipe)
    present = torch.tensor([other == name for other in MODALITIES])
    with torch.no_grad():
        said = bounded(getattr(model, name).head.eval()(seen.context)[:, 0])
    model.train()
    for _ in range(recipe.steps):
        rows = torch.from_numpy(rng.integers(0, len(said), recipe.batch))
        here = present.expand(len(rows), -1)
        loss = (fused(model, {name: seen.context[rows]}, here) - said[rows]).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    model.eval()
    with torch.inference_mode():
        here = present.expand(len(held.label), -1)
        residual = (fused(model, {name: held.context}, here) - held.label).abs()
    return {name: half_width(residual)}


def _optimiser(
    model: TamUlag, recipe: FusionRecipe
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    parameters = [*model.fusion.parameters(), *model.head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=recipe.rate, weight_decay=recipe.decay)
    return optimiser, torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.steps)


def _subsets(names: Collection[str]) -> np.ndarray:
    """Return every non-empty set of these modalities, (S, M)."""
    absent = [name not in names for name in MODALITIES]
    return SUBSETS[~SUBSETS[:, absent].any(axis=1)]


def paired(
    clips: Mapping[str, Vectors], recipe: FusionRecipe, rng: np.random.Generator
) -> tuple[dict[str, Tensor], Tensor]:
    """Draw clips of the modalities whose labels lie near each other.

    Returns:
        Per modality the vectors (B, H), and the mean of their labels (B,).
    """
    wanted = rng.uniform(-2.5, 2.5, recipe.batch)
    vectors, labels = {}, []
    for name in clips:
        order = np.argsort(clips[name].label.numpy(), kind="stable")
        rising = clips[name].label.numpy()[order]
        first = np.searchsorted(rising, wanted - recipe.near, side="left")
        last = np.searchsorted(rising, wanted + recipe.near, side="right")
        # Where nothing is near, this is the nearest clip or the one next to it.
        place = first + np.floor(rng.random(recipe.batch) * np.maximum(1, last - first))
        chosen = torch.from_numpy(order[place.astype(np.int64).clip(0, len(order) - 1)])
        vectors[name] = clips[name].context[chosen]
        labels.append(clips[name].label[chosen])
    return vectors, torch.stack(labels).mean(dim=0)


def fused(model: TamUlag, vectors: dict[str, Tensor], present: Tensor) -> Tensor:
    """Return the fused estimates (B,) of pooled vectors (B, H) with presence (B, M)."""
    absent = {name: torch.zeros(len(present), getattr(model, name).size) for name in MODALITIES}
    contexts_BNH = [vectors.get(name, absent[name]).unsqueeze(1) for name in MODALITIES]
    vector, _ = model.fusion(contexts_BNH, present.unsqueeze(1))
    return bounded(model.head(vector)[:, 0, 0])


@torch.inference_mode()
def intervals(
    model: TamUlag, clips: Mapping[str, Vectors], recipe: FusionRecipe, rng: np.random.Generator
) -> dict[str, float]:
    """Return per subset the half width of the 90 % interval on validation residuals."""
    many = recipe.model_copy(update={"batch": CALIBRATION})
    vectors, label = paired(clips, many, rng)
    half = {}
    for subset in _subsets(clips):
        present = torch.from_numpy(subset).expand(len(label), -1)
        residual = (fused(model, vectors, present) - label).abs()
        names = [name for name, there in zip(MODALITIES, subset, strict=True) if there]
        half["+".join(names)] = half_width(residual)
    return half


def half_width(residual: Tensor) -> float:
    """Return the split conformal half width at 90 % of residuals |estimate - label|.

    q = their ceil(0.9 (n + 1)) / n quantile (Vovk et al. 2005; Lei et al. 2018)
    """
    rank = min(len(residual), int(np.ceil(0.9 * (len(residual) + 1))))
    return round(float(residual.sort().values[rank - 1]), 4)
