"""What ULAG's labels are worth: their gain over copies, and heads that are trained on them.

Text alone, on CH-SIMS, whose human text labels nothing here is trained on but the head that says
so. Knows clips and label generation. Knows no command line.

Shapes: N training clips, V validation clips, D units of a token state, S seeds.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ..data.clips import Clip
from ..data.corpus import from_clips
from ..evaluation.resampling import intervals
from ..nn.ulag import Labels
from ..training.joint_recipe import LabelTable
from ..training.progress import Progress
from ..training.ridge import fit_ridge
from ..training.train_joint import build, train_epoch
from ..training.train_seeds import mean_interval
from ..training.validation import estimate
from .label_agreement import Numbers, correlation, generate, recipe_of

JOINT: tuple[Labels, ...] = ("none", "ulag")
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


class JointScore(NamedTuple):
    """Joint trainings on text, each clip with the weight 1 for the text head."""

    labels: str
    """`none`, copies; or `ulag`."""
    figures: dict[str, float]
    """On validation clips, means over the seeds: `Corr` and `MAE` of the text head with people's
    text labels; `fused Corr` and `fused MAE` of the fused estimate with the clips' labels; and
    `seconds` of processor time, labels included."""
    interval: dict[str, float]
    """Half width of the 95 % interval of each over the seeds; empty for one seed."""


class Proof(NamedTuple):
    """All of it."""

    gain: dict[str, Span]
    """Corr and MAE of generated labels less those of copies, mean over the seeds."""
    heads: list[HeadScore]
    joint: list[JointScore]


def prove(
    train: Sequence[Clip],
    valid: Sequence[Clip],
    seeds: Sequence[int],
    progress: Progress,
    *,
    epochs: int,
) -> Proof:
    """Measure generated text labels, and heads by ridge and jointly that were trained on them.

    Args:
        train: Clips with text and human labels.
        valid: Likewise, for the heads.
        seeds: Of the generator's folds, and of the joint trainings.
        progress: Called with the current work, how much of it is done, and of how much.
        epochs: Of a joint training; the one with the lowest L1 of the fused estimate counts.
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
    joint = [_joint(train, valid, kind, seeds, epochs, progress) for kind in JOINT]
    return Proof(gain_of(made, [clip], human, _groups(train)), scores, joint)


def _joint(
    train: Sequence[Clip],
    valid: Sequence[Clip],
    kind: Labels,
    seeds: Sequence[int],
    epochs: int,
    progress: Progress,
) -> JointScore:
    recipe = recipe_of(kind)
    recipe = recipe.model_copy(update={"labels": LabelTable(floor=1.0)})
    corpora = from_clips(train), from_clips(valid)
    clip, human = _labels(valid)
    rows = []
    for seed in seeds:
        begin, best, chosen = time.process_time(), float("inf"), dict[str, float]()
        task = build(recipe, corpora[0], seed)
        for epoch in range(1, epochs + 1):
            train_epoch(task, epoch, progress)
            found = estimate(task, corpora[1])
            fused = _mean([found.sentiment.double().numpy()], clip)
            if fused["MAE"] < best:
                best = fused["MAE"]
                chosen = _mean([found.heads[:, 0].double().numpy()], human)
                chosen |= {f"fused {key}": value for key, value in fused.items()}
        rows.append(chosen | {"seconds": time.process_time() - begin})
    values = {key: [row[key] for row in rows] for key in rows[0]}
    interval = {k: mean_interval(v) for k, v in values.items()} if len(rows) > 1 else {}
    return JointScore(kind, {k: float(np.mean(v)) for k, v in values.items()}, interval)


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
