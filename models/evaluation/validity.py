"""How far the estimates of a group of clips can be trusted: bias, spread, agreement, coverage.

Knows clips and a checkpoint. Knows no file and no front end.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..data.clips import Clip
from ..nn.tam_ulag import TamUlag
from ..runtime.checkpoint import Card
from .evaluate import Head, estimates, insides
from .resampling import Places, intervals

HEADS: tuple[Head, ...] = ("text", "audio", "vision", "all")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """What one head says of a group of clips, beside what people say.

    Each figure has the central 95 % over resampled people (`Clip.group`), NaN where there is none.
    """

    head: Head
    n: int
    """Clips that have an estimate."""
    figures: dict[str, float]
    """MAE; bias, the mean of estimate less label; mean, deviation and beyond_1 (share further than
    1 from 0) of the estimates; Corr; sign, the share of the labels other than 0 whose sign is
    right; covered, the share of labels inside the 90 % interval."""
    intervals: dict[str, tuple[float, float]]


def agreements(
    model: TamUlag, card: Card, clips: Sequence[Clip], *, seed: int = 0
) -> list[Agreement]:
    """Return the agreement of each trained head that has something to score.

    Args:
        model: Its window is at least as long as the longest clip.
        card: States which heads are trained, and the half widths.
        clips: With labels in [-3, 3], at least one.
        seed: Of the resampling.
    """
    found = []
    for head in HEADS:
        if not card.trained["sentiment" if head == "all" else head]:
            continue
        scores, present = estimates(model, clips, head)
        if present.any():
            found.append(_agreement(head, model, card, clips, scores, present, seed))
    return found


def _agreement(
    head: Head,
    model: TamUlag,
    card: Card,
    clips: Sequence[Clip],
    scores: npt.NDArray[np.floating],
    present: npt.NDArray[np.bool_],
    seed: int,
) -> Agreement:
    inside = insides(model, card, clips, head)[present]
    label = np.array([clip.label for clip in clips])[present]
    score = scores[present].astype(np.float64)
    group = np.array([clip.group for clip in clips])[present]
    rows_of = [np.flatnonzero(group == name) for name in np.unique(group)]

    def measured(places: Places) -> dict[str, float]:
        rows = np.concatenate([rows_of[place] for place in places])
        return _figures(score[rows], label[rows], inside[rows])

    found = measured(np.arange(len(rows_of)))
    return Agreement(head, len(score), found, intervals(measured, len(rows_of), seed=seed))


def _figures(score: Floats, label: Floats, inside: Floats) -> dict[str, float]:
    signed = label != 0
    varies = len(score) > 1 and score.std() > 0 and label.std() > 0
    return {
        "MAE": float(np.abs(score - label).mean()),
        "bias": float((score - label).mean()),
        "mean": float(score.mean()),
        "deviation": float(score.std()),
        "beyond_1": float((np.abs(score) > 1).mean()),
        "Corr": float(np.corrcoef(score, label)[0, 1]) if varies else math.nan,
        "sign": float((score * label > 0)[signed].mean()) if signed.any() else math.nan,
        "covered": float(np.nanmean(inside)) if np.isfinite(inside).any() else math.nan,
    }
