"""What ULAG's labels are worth: their gain over copies, and heads that are trained on them.

Text alone, on CH-SIMS, whose human text labels nothing here is trained on but the head that says
so. Knows clips and label generation. Knows no command line.

Shapes: N training clips, V validation clips, D units of a token state, S seeds.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ..data.clips import Clip
from ..evaluation.resampling import intervals
from ..training.progress import Progress
from ..training.ridge import fit_ridge
from .label_agreement import Numbers, correlation, generate

STRENGTH = 3.0
"""Of the heads' ridge."""


class Span(NamedTuple):
    """A figure with the central 95 % over videos drawn with replacement."""

    value: float
    low: float
    high: float


class HeadScore(NamedTuple):
    """A text head on clips that it has not seen."""

    trained_on: str
    """`copied`, `ulag` or `human` labels of text."""
    measured_on: str
    """`text`, people's labels of the text alone; or `clip`, those of the whole clip."""
    figures: dict[str, float]
    """Corr and MAE; for `ulag` means over the seeds."""
    gain: dict[str, Span]
    """Of each over the head of copies."""


class Proof(NamedTuple):
    """All of it."""

    gain: dict[str, Span]
    """Corr and MAE of generated labels less those of copies, mean over the seeds."""
    heads: list[HeadScore]


def prove(
    train: Sequence[Clip], valid: Sequence[Clip], seeds: Sequence[int], progress: Progress
) -> Proof:
    """Measure generated text labels, and ridge regressions that were fitted on them.

    Args:
        train: Clips with text and human labels.
        valid: Likewise, for the heads.
        seeds: Of the generator's folds.
        progress: Called with the current work, how much of it is done, and of how much.
    """
    made = [
        generate(train, valid, "ulag", seed, epochs=1, progress=progress)[:, 0] for seed in seeds
    ]
    clip, human = _labels(train)
    heads = {"copied": [clip], "ulag": made, "human": [human]}
    found = {name: [_estimates(train, labels, valid) for labels in h] for name, h in heads.items()}
    targets = dict(zip(("clip", "text"), _labels(valid), strict=True))
    scores = [
        HeadScore(
            name,
            what,
            _mean(found[name], targets[what]),
            gain_of(found[name], found["copied"], targets[what], _groups(valid)),
        )
        for what in ("text", "clip")
        for name in heads
    ]
    return Proof(gain_of(made, [clip], human, _groups(train)), scores)


def gain_of(
    ours: Sequence[Numbers], others: Sequence[Numbers], truth: Numbers, groups: Sequence[str]
) -> dict[str, Span]:
    """Return how much higher Corr and MAE of ours are than those of others, by a bootstrap.

    Args:
        ours: One (N,) per seed; the seeds' figures are averaged.
        others: Likewise.
        truth: (N,).
        groups: N videos or speakers, which are drawn whole.
    """
    codes = np.unique(np.array(groups), return_inverse=True)[1]
    members = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]

    def measured(places: npt.NDArray[np.intp]) -> dict[str, float]:
        rows = np.concatenate([members[place] for place in places])
        parts = [_mean([labels[rows] for labels in some], truth[rows]) for some in (ours, others)]
        return {key: parts[0][key] - parts[1][key] for key in parts[0]}

    spans = intervals(measured, len(members))
    value = measured(np.arange(len(members)))
    return {key: Span(value[key], *spans[key]) for key in value}


def _mean(made: Sequence[Numbers], truth: Numbers) -> dict[str, float]:
    corr = [correlation(labels, truth) for labels in made]
    error = [np.abs(labels - truth).mean() for labels in made]
    return {"Corr": float(np.mean(corr)), "MAE": float(np.mean(error))}


def _labels(clips: Sequence[Clip]) -> tuple[Numbers, Numbers]:
    whole, text = zip(*((clip.label, clip.unimodal["text"]) for clip in clips), strict=True)
    return np.array(whole), np.array(text)


def _groups(clips: Sequence[Clip]) -> list[str]:
    return [clip.group for clip in clips]


def _estimates(train: Sequence[Clip], labels: Numbers, valid: Sequence[Clip]) -> Numbers:
    ours, theirs = (
        torch.from_numpy(np.stack([clip.values["text"].mean(axis=0) for clip in clips]))
        for clips in (train, valid)
    )
    line = fit_ridge(ours, torch.from_numpy(labels), [""] * len(train), STRENGTH)
    return np.asarray((theirs @ line.weight + line.bias).double().numpy(), np.float64)
