"""Train the fused head on clips of different people that carry nearly the same label.

Knows pooled vectors of one to three modalities. Knows no feature file and no stream.

It learns how to weigh modalities that agree; no pair of clips is a conflict.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..data.clips import DataError
from ..evaluation.conformal import Residuals, Widths, dependent, levels, widths
from ..nn.tam_ulag import MODALITIES, TamUlag, bounded, weighed
from .heads_recipe import FusionRecipe
from .progress import Log

DRAWS = 20_000
"""Pairings from which the half widths of the intervals are taken; as precise as their number of
distinct clips allows, not as this one does."""
SUBSETS = np.array([[bool(bits & 4), bool(bits & 2), bool(bits & 1)] for bits in range(1, 8)])
"""Every non-empty set of present modalities, (7, M)."""


@dataclass(frozen=True)
class Vectors:
    """The pooled vectors of one modality's clips."""

    context: Tensor
    """(N, H) float32."""
    label: Tensor
    """(N,) sentiment."""
    part: Tensor
    """(N,) int64, see `quarters`: 0 and 1 are the half that trains, 2 and 3 calibrate."""

    def of_rows(self, rows: Tensor) -> "Vectors":
        """Return some rows: their places (R,), or a bool for each (N,)."""
        return Vectors(self.context[rows], self.label[rows], self.part[rows])


@dataclass(frozen=True)
class PrefixVectors:
    """The pooled vectors of clips and of prefixes of them."""

    context: Tensor
    """(N, H) float32."""
    label: Tensor
    """(N,) sentiment."""
    clip: Tensor
    """(N,) int64, the place of the clip."""
    steps: Tensor
    """(N,) int64, valid steps of the prefix inside the window."""
    source: Tensor
    """(N,) int64, which corpus it is of."""

    def of_rows(self, rows: Tensor) -> "PrefixVectors":
        """Return some rows: their places (R,), or a bool for each (N,)."""
        parts = (self.context, self.label, self.clip, self.steps, self.source)
        return PrefixVectors(*(part[rows] for part in parts))


def halves(vectors: Vectors) -> tuple[Vectors, Vectors]:
    """Return the clips that train, and those that calibrate."""
    return vectors.of_rows(vectors.part < 2), vectors.of_rows(vectors.part >= 2)


def train_fusion(
    model: TamUlag,
    clips: Mapping[str, Vectors],
    recipe: FusionRecipe,
    rng: np.random.Generator,
    log: Log,
) -> None:
    """Train the fused head on one half of paired clips; the other half is for the intervals.

    The branches stay as they are, so the unimodal heads do too.

    Args:
        model: Its `fusion` and `head` are trained.
        clips: Those that no branch was trained on: on its own training clips a branch looks surer
            than it is, and the fused head would trust the one that has overfitted most.
        recipe: How.
        rng: Random stream.
        log: Called with a line of progress.

    Raises:
        DataError: If a modality has fewer than two clips.
    """
    for name, vectors in clips.items():
        if len(vectors.label) < 2:
            raise DataError(f"{name}: {len(vectors.label)} validation clips: the fusion needs two")
    train = {name: halves(vectors)[0] for name, vectors in clips.items()}
    optimiser, schedule = _optimiser(model, recipe)
    subsets = _subsets(clips)
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


def copy_head(
    model: TamUlag,
    name: str,
    clips: Vectors,
    recipe: FusionRecipe,
    rng: np.random.Generator,
) -> None:
    """Train the fused head to give the estimate of the only modality's own head.

    Args:
        model: Its `fusion` and `head` are trained.
        name: The modality.
        clips: Those on which it learns.
        recipe: How; `near` does not matter.
        rng: Random stream.
    """
    optimiser, schedule = _optimiser(model, recipe)
    present = torch.tensor([other == name for other in MODALITIES])
    with torch.no_grad():
        wanted = bounded(getattr(model, name).head.eval()(clips.context)[:, 0])
    model.train()
    for _ in range(recipe.steps):
        rows = torch.from_numpy(rng.integers(0, len(wanted), recipe.batch))
        estimate = fused(model, {name: clips.context[rows]}, present.expand(len(rows), -1))
        loss = (estimate - wanted[rows]).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    model.eval()


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
    chosen = {name: _near(clips[name].label, wanted, recipe.near, rng) for name in clips}
    vectors = {name: clips[name].context[rows] for name, rows in chosen.items()}
    labels = [clips[name].label[rows] for name, rows in chosen.items()]
    return vectors, torch.stack(labels).mean(dim=0)


def _near(label: Tensor, wanted: np.ndarray, near: float, rng: np.random.Generator) -> Tensor:
    """Draw for each wanted label a row (B,) whose own is no further than `near`, else the next."""
    order = np.argsort(label.numpy(), kind="stable")
    rising = label.numpy()[order]
    first = np.searchsorted(rising, wanted - near, side="left")
    last = np.searchsorted(rising, wanted + near, side="right")
    # Where nothing is near, this is the nearest clip or the one next to it.
    place = first + np.floor(rng.random(len(wanted)) * np.maximum(1, last - first))
    return torch.from_numpy(order[place.astype(np.int64).clip(0, len(order) - 1)])


def fused(model: TamUlag, vectors: dict[str, Tensor], present: Tensor) -> Tensor:
    """Return the fused estimates (B,) of pooled vectors (B, H) with presence (B, M)."""
    absent = {name: torch.zeros(len(present), getattr(model, name).size) for name in MODALITIES}
    contexts_BNH = [vectors.get(name, absent[name]).unsqueeze(1) for name in MODALITIES]
    if model.config.shares:
        scores = [
            getattr(model, name).head(context)
            for name, context in zip(MODALITIES, contexts_BNH, strict=True)
        ]
        heads = bounded(torch.cat(scores, dim=-1))
        return weighed(heads, present.unsqueeze(1), model.config.shares)[0][:, 0]
    vector, _ = model.fusion(contexts_BNH, present.unsqueeze(1))
    return bounded(model.head(vector)[:, 0, 0])


@torch.inference_mode()
def intervals(
    model: TamUlag,
    clips: Mapping[str, PrefixVectors],
    recipe: FusionRecipe,
    rng: np.random.Generator,
) -> Widths:
    """Calibrate the fused head on clips and prefixes that neither it nor a branch was trained on.

    Of one modality alone each estimate is compared with its clip's own label. Of several it is one
    on paired clips, and compared with the mean label of those that are present; their labels are
    as frequent as in the modalities' own clips.

    Args:
        model: Its fused head is trained.
        clips: Per modality.
        recipe: `near` is how far apart paired labels are at most.
        rng: Draws the pairs.
    """
    found = {}
    for subset in _subsets(clips):
        names = [name for name, present in zip(MODALITIES, subset, strict=True) if present]
        rows = drawn_rows([clips[name] for name in names], recipe.near, rng)
        parts = [clips[name].of_rows(chosen) for name, chosen in zip(names, rows, strict=True)]
        vectors = {name: part.context for name, part in zip(names, parts, strict=True)}
        estimate = fused(model, vectors, torch.from_numpy(subset).expand(len(rows[0]), -1))
        label = torch.stack([part.label for part in parts]).mean(dim=0)
        reached = [levels(part.steps, name) for name, part in zip(names, parts, strict=True)]
        found["+".join(names)] = Residuals(
            (estimate - label).abs(),
            torch.stack(reached).amin(dim=0),
            torch.stack([part.clip for part in parts], dim=1),
            torch.stack([part.source for part in parts], dim=1),
        )
    if not model.config.shares:
        return widths(found)
    return dependent(widths(found), dict(zip(MODALITIES, model.config.shares, strict=True)))


def drawn_rows(
    clips: Sequence[PrefixVectors], near: float, rng: np.random.Generator
) -> list[Tensor]:
    """Return the rows of each modality that make up the estimates to calibrate on.

    Args:
        clips: Of one modality, all of whose rows are returned, or of several, which are paired.
        near: How far apart paired labels are at most, where there is such a pair.
        rng: Draws the pairs: labels are as frequent as in the modalities' own clips.
    """
    if len(clips) == 1:
        return [torch.arange(len(clips[0].label))]
    count = DRAWS // len(clips)
    wanted = np.concatenate([rng.choice(part.label.numpy(), count) for part in clips])
    return [_near(part.label, wanted, near, rng) for part in clips]
