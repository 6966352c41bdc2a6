"""Train the fused head on clips of different people that carry nearly the same label.

Knows pooled vectors of the three modalities. Knows no feature file and no stream.

It learns how to weigh what agrees; it has never seen a conflict.
"""

from collections.abc import Callable, Mapping
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
    parameters = [*model.fusion.parameters(), *model.head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=recipe.rate, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.steps)
    model.train()
    for step in range(recipe.steps):
        drawn, label = paired(train, recipe, rng)
        present = torch.from_numpy(rng.choice(SUBSETS, len(label)))
        loss = (fused(model, drawn, present) - label).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if (step + 1) % 500 == 0:
            log(f"  fusion step {step + 1}/{recipe.steps}: MAE {loss.item():.4f}")
    model.eval()
    return intervals(model, valid, recipe, rng)


def paired(
    clips: Mapping[str, Vectors], recipe: FusionRecipe, rng: np.random.Generator
) -> tuple[dict[str, Tensor], Tensor]:
    """Draw clips of the three modalities whose labels lie near each other.

    Returns:
        Per modality the vectors (B, H), and the mean of the three labels (B,).
    """
    wanted = rng.uniform(-2.5, 2.5, recipe.batch)
    vectors, labels = {}, []
    for name in MODALITIES:
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
    contexts_BNH = [vectors[name].unsqueeze(1) for name in MODALITIES]
    vector, _ = model.fusion(contexts_BNH, present.unsqueeze(1))
    return bounded(model.head(vector)[:, 0, 0])


@torch.inference_mode()
def intervals(
    model: TamUlag, clips: Mapping[str, Vectors], recipe: FusionRecipe, rng: np.random.Generator
) -> dict[str, float]:
    """Return per subset the split conformal half width at 90 % on validation residuals.

    q = the ceil(0.9 (n + 1)) / n quantile of |estimate - label| (Vovk et al. 2005; Lei et al. 2018)
    """
    many = recipe.model_copy(update={"batch": CALIBRATION})
    vectors, label = paired(clips, many, rng)
    half = {}
    for subset in SUBSETS:
        present = torch.from_numpy(subset).expand(len(label), -1)
        residual = (fused(model, vectors, present) - label).abs().sort().values
        rank = min(len(residual), int(np.ceil(0.9 * (len(residual) + 1))))
        names = [name for name, there in zip(MODALITIES, subset, strict=True) if there]
        half["+".join(names)] = round(float(residual[rank - 1]), 4)
    return half
