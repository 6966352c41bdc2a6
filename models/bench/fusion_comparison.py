"""Compare the fused head with other ways to fuse, on pairs of clips that it was not trained on.

Knows a model, the recipe of its training and pooled vectors. Knows no stream. What it cannot show:
no corpus here has words, voice and face of one person, so how people judge a conflict is not known,
but for the votes of CREMA-D on voice and face.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.clips import DataError
from ..evaluation.metrics import mosi_metrics
from ..nn.tam_ulag import MODALITIES, TamUlag, bounded, weighed
from ..runtime.checkpoint import load
from ..text.text_encoder import encoder_for
from ..training.heads_recipe import FusionRecipe, HeadsRecipe
from ..training.recipe_file import load_recipe
from ..training.train_fusion import CALIBRATION, SUBSETS, Vectors, fused, halves, paired
from ..training.train_heads import pooled_vectors
from .fusion_baselines import by_agreement, by_precision, fit, product

PAIRINGS = 4000
RESAMPLES = 20
"""Draws of the validation clips with replacement, each with pairings of its own."""
CLEAR = 1.0
"""In a conflict one label is at most -1 and the other at least 1."""
PAIRS = ((0, 1), (0, 2), (1, 2))

Fuse = Callable[[dict[str, Tensor], Tensor], Tensor]
"""(pooled vectors (B, H) per modality, present (M,) bool) -> estimates (B,)."""


class FusionScore(NamedTuple):
    """One way to fuse on one set of present modalities: means over the resamples."""

    way: str
    present: str
    MAE: float
    MAE_interval: float
    """1.96 deviations of MAE over the resamples."""
    better: float
    """MAE of the fused head minus this MAE; above 0: this is better."""
    better_interval: float
    """1.96 deviations of that difference, taken resample by resample."""
    Corr: float
    Acc2: float
    """Negative against positive, labels of 0 left out."""
    half: float
    """0.9 quantile of the distance from the label."""


class Conflict(NamedTuple):
    """One way to fuse on two modalities of which one is clearly negative, the other positive."""

    way: str
    present: str
    to_first: float
    """Mean distance to the label of the modality that is named first."""
    to_second: float
    nearer_first: float
    """Share of estimates that are nearer to the first."""
    size: float
    """Mean distance from 0: how far it takes a side at all."""


class Validation(NamedTuple):
    """A checkpoint and the clips that none of its branches was trained on."""

    model: TamUlag
    clips: dict[str, Vectors]
    recipe: FusionRecipe


def open_validation(checkpoint: str, path: Path) -> Validation:
    """Load a checkpoint and run its branches over the validation clips of its training file.

    Args:
        checkpoint: Name or path; all four heads must be trained.
        path: Training file; relative paths in it count from the working directory.

    Raises:
        CheckpointError: If the checkpoint cannot be used.
        DataError: If the file cannot be used, or a head is untrained or has no table there.
    """
    model, card = load(checkpoint)
    recipe = load_recipe(path, HeadsRecipe)
    trained = {name for name, is_trained in card.trained.items() if is_trained}
    missing = {*MODALITIES, "sentiment"} - (trained & {*recipe.tables, "sentiment"})
    if missing:
        raise DataError(
            f"checkpoint {checkpoint} with {path}: {', '.join(sorted(missing))} untrained or not "
            "in the file: give a checkpoint with all four heads and the file it was trained by"
        )
    encoder = encoder_for(checkpoint)
    clips = {name: pooled_vectors(model, encoder, recipe, name, "valid") for name in MODALITIES}
    return Validation(model, clips, recipe.fusion)


def ways(
    model: TamUlag, clips: Mapping[str, Vectors], recipe: FusionRecipe, rng: np.random.Generator
) -> dict[str, Fuse]:
    """Return every way to fuse, those that learn having learned from the head's own half.

    Args:
        model: With its fused head, way `head`.
        clips: Those that the head was trained on.
        recipe: How they are paired.
        rng: Draws the pairings.
    """
    many = recipe.model_copy(update={"batch": PAIRINGS})
    vectors, label = paired(clips, many, rng)
    experts = fit(scores(model, vectors), label)

    def head(drawn: dict[str, Tensor], present: Tensor) -> Tensor:
        return fused(model, drawn, present.expand(len(drawn["text"]), -1))

    def mean_by(weight: Tensor) -> Fuse:
        return lambda drawn, present: weighed(scores(model, drawn), present, weight.tolist())[0]

    return {
        "head": head,
        "mean": mean_by(torch.ones(len(MODALITIES))),
        "agreement": mean_by(by_agreement()),
        "precision": mean_by(by_precision(experts)),
        "product": lambda drawn, present: product(experts, scores(model, drawn), present),
    }


def scores(model: TamUlag, vectors: Mapping[str, Tensor]) -> Tensor:
    """Return the unimodal estimates (B, M) of pooled vectors."""
    return torch.cat([bounded(getattr(model, n).head(vectors[n])) for n in MODALITIES], dim=-1)


@torch.inference_mode()
def compare(
    validation: Validation, rng: np.random.Generator
) -> tuple[list[FusionScore], list[Conflict]]:
    """Compare the ways on the half of the validation clips that did not train the fused head.

    Args:
        validation: One half of its clips trained the fused head; the other ones are compared on.
        rng: Draws pairs.

    Returns:
        A row per way and set of modalities, on clips with nearly equal labels; and one per way and
        pair of modalities, on clips with labels on opposite sides.
    """
    seen, new = ({n: halves(v)[side] for n, v in validation.clips.items()} for side in (0, 1))
    fuses = ways(validation.model, seen, validation.recipe, rng)
    many = validation.recipe.model_copy(update={"batch": CALIBRATION})
    draws = [paired(_resampled(new, rng), many, rng) for _ in range(RESAMPLES)]
    rows = []
    for subset in torch.from_numpy(SUBSETS):
        found = {
            way: [_figures(fuse(drawn, subset), label) for drawn, label in draws]
            for way, fuse in fuses.items()
        }
        rows += [_row(way, subset, figures, found["head"]) for way, figures in found.items()]
    return rows, [row for pair in PAIRS for row in _conflicts(fuses, new, pair, rng)]


def _resampled(clips: Mapping[str, Vectors], rng: np.random.Generator) -> dict[str, Vectors]:
    out = {}
    for name, vectors in clips.items():
        count = len(vectors.label)
        out[name] = vectors.of_rows(torch.from_numpy(rng.integers(0, count, count)))
    return out


def _figures(estimate: Tensor, label: Tensor) -> dict[str, float]:
    figures = mosi_metrics(estimate.numpy(), label.numpy())
    return figures | {"half": float((estimate - label).abs().quantile(0.9))}


def _row(
    way: str,
    subset: Tensor,
    found: list[dict[str, float]],
    head: list[dict[str, float]],
) -> FusionScore:
    def of(key: str) -> np.ndarray:
        return np.array([figures[key] for figures in found])

    better = np.array([figures["MAE"] for figures in head]) - of("MAE")
    return FusionScore(
        way,
        _names(subset.nonzero().flatten().tolist()),
        float(of("MAE").mean()),
        float(1.96 * of("MAE").std(ddof=1)),
        float(better.mean()),
        float(1.96 * better.std(ddof=1)),
        *(float(of(key).mean()) for key in ("Corr", "Acc2_non0", "half")),
    )


def _conflicts(
    fuses: Mapping[str, Fuse],
    clips: Mapping[str, Vectors],
    pair: tuple[int, int],
    rng: np.random.Generator,
) -> list[Conflict]:
    """Return a row per way: one of the two modalities clearly negative, the other positive."""
    signs = torch.from_numpy(rng.choice([-1.0, 1.0], CALIBRATION)).float()
    present = torch.zeros(len(MODALITIES), dtype=torch.bool)
    present[list(pair)] = True
    drawn = {name: clips[name].context[:1].expand(CALIBRATION, -1) for name in MODALITIES}
    labels = []
    for place, side in zip(pair, (signs, -signs), strict=True):
        vectors = clips[MODALITIES[place]]
        rows = _rows_with(vectors.label, side, rng)
        drawn[MODALITIES[place]] = vectors.context[rows]
        labels.append(vectors.label[rows])
    out = []
    for way, fuse in fuses.items():
        estimate = fuse(drawn, present)
        first, second = ((estimate - label).abs() for label in labels)
        means = (first, second, (first < second).float(), estimate.abs())
        out.append(Conflict(way, _names(pair), *(float(x.mean()) for x in means)))
    return out


def _rows_with(label: Tensor, side: Tensor, rng: np.random.Generator) -> Tensor:
    """Draw for each entry of `side` a row whose label is clearly on that side."""
    rows = torch.zeros(len(side), dtype=torch.int64)
    for sign in (-1.0, 1.0):
        there = (label * sign >= CLEAR).nonzero().flatten()
        chosen = side == sign
        rows[chosen] = there[torch.from_numpy(rng.integers(0, len(there), int(chosen.sum())))]
    return rows


def _names(places: tuple[int, ...] | list[int]) -> str:
    return "+".join(MODALITIES[place] for place in places)
