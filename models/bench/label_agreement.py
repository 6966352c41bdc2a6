"""Compare generated unimodal labels with human ones (CH-SIMS).

The joint training sees the clip's label alone; the human labels of text, audio and vision are
compared afterwards. Knows corpora and the joint training. Knows no file and no command line.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch

from ..data.clips import Clip
from ..data.corpus import from_clips
from ..nn.tam_ulag import MODALITIES
from ..nn.ulag import Gradient, Labels
from ..training.joint_recipe import DataTable, Group, JointRecipe, LabelTable, ModelTable
from ..training.progress import Log, Progress
from ..training.train_joint import build, train_epoch
from ..training.train_seeds import mean_interval
from ..training.validation import estimate
from .simulated_features import simulated

KINDS: tuple[Labels, ...] = ("ulag", "ulgm", "ulag_release", "both")
FIGURES = ("Corr", "MAE", "sign", "change")
PATIENCE = 3
"""Epochs without a lower validation L1 after which a training stops."""
SPLIT = 9973
"""Beside the seed: the stream from which features are simulated."""

Numbers = npt.NDArray[np.float64]


class LabelScore(NamedTuple):
    """One way to unimodal labels, for one modality, against human ones; means over the seeds."""

    labels: str
    """`copied`: the clip's label as it is; `zero`: always 0; `bounded`: the human label as far as
    |y_s| <= |y| allows, which no label of the release's ULAG can beat; else the generator."""
    modality: str
    snr: float | None
    """Of simulated audio and vision in dB; None: trained on text alone."""
    figures: dict[str, float]
    """`FIGURES`, see `compare`."""
    interval: dict[str, float]
    """Half width of the 95 % interval of each over the seeds; empty for what has no seed."""


def compare(generated: Numbers, human: Numbers, clip: Numbers) -> dict[str, float]:
    """Compare generated labels with human ones of the same modality.

    Args:
        generated: (N,).
        human: (N,).
        clip: (N,) label of the whole clip.

    Returns:
        Corr and MAE; `sign`, the share that agrees in negative, neutral or positive; `change`, the
        correlation of generated - clip with human - clip. Beware: it is well above 0 wherever
        labels shrink, since human ones lie nearer to 0 than the clip's; compare it with that of
        `zero`. nan where one side does not vary.
    """
    return {
        "Corr": correlation(generated, human),
        "MAE": float(np.abs(generated - human).mean()),
        "sign": float((np.sign(generated) == np.sign(human)).mean()),
        "change": correlation(generated - clip, human - clip),
    }


def correlation(a: Numbers, b: Numbers) -> float:
    """Return Corr of two (N,); nan where one does not vary."""
    if np.ptp(a) < 1e-6 or np.ptp(b) < 1e-6:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def baselines(clips: Sequence[Clip]) -> list[LabelScore]:
    """Return what needs no training: the clip's label, no label, and the best bounded one."""
    clip = np.array([c.label for c in clips])
    rows = []
    for name in MODALITIES:
        human = np.array([c.unimodal[name] for c in clips])
        bounded = np.clip(human, -np.abs(clip), np.abs(clip))
        made_by = {"copied": clip, "zero": 0 * clip, "bounded": bounded}
        for labels, made in made_by.items():
            rows.append(LabelScore(labels, name, None, compare(made, human, clip), {}))
    return rows


def against(
    train: Sequence[Clip],
    valid: Sequence[Clip],
    *,
    kinds: Sequence[Labels] = KINDS,
    snrs: Sequence[float] = (),
    seeds: Sequence[int],
    epochs: int,
    gradient: Gradient = "full",
    log: Log,
    progress: Progress,
) -> list[LabelScore]:
    """Return the baselines, then each generator on text alone and with simulated features.

    Args:
        train: Clips with text and all three human labels; of these labels are generated.
        valid: Clips that choose the epoch, by the clips' labels.
        kinds: Generators.
        snrs: Noise of simulated features in dB; each is a setting of its own.
        seeds: Of weights, order and simulation.
        epochs: At most.
        gradient: How far the loss of the release's ULAG label reaches; its own is `full`.
        log: Called with a line of progress.
        progress: Called with the current work, how much of it is done, and of how much.
    """
    rows = baselines(train)
    for snr in (None, *snrs):
        for kind in kinds:
            made = []
            for seed in seeds:
                both = [*train, *valid]
                if snr is not None:
                    both = simulated(both, snr, np.random.default_rng([SPLIT, seed]))
                one, two = both[: len(train)], both[len(train) :]
                made.append(
                    generate(
                        one, two, kind, seed, epochs=epochs, gradient=gradient, progress=progress
                    )
                )
                log(f"{kind}, {setting(snr)}, seed {seed} is done")
            rows += _summary(train, made, kind, snr)
    return rows


def setting(snr: float | None) -> str:
    """Return what a model was trained on, in words."""
    return "text alone" if snr is None else f"voice and face simulated at {snr:g} dB"


def _summary(
    clips: Sequence[Clip], made: Sequence[Numbers], kind: Labels, snr: float | None
) -> list[LabelScore]:
    clip = np.array([c.label for c in clips])
    rows = []
    for place, name in enumerate(MODALITIES if snr is not None else MODALITIES[:1]):
        human = np.array([c.unimodal[name] for c in clips])
        found = [compare(labels[:, place], human, clip) for labels in made]
        values = {key: [figures[key] for figures in found] for key in FIGURES}
        mean = {key: float(np.mean(v)) for key, v in values.items()}
        interval = {key: mean_interval(v) for key, v in values.items()} if len(made) > 1 else {}
        rows.append(LabelScore(kind, name, snr, mean, interval))
    return rows


def generate(
    train: Sequence[Clip],
    valid: Sequence[Clip],
    kind: Labels,
    seed: int,
    *,
    epochs: int,
    gradient: Gradient = "full",
    progress: Progress,
) -> Numbers:
    """Train on the clips' labels alone; return the generated labels (N, M) of the training clips.

    They are the targets of the unimodal heads in the epoch with the lowest validation L1 of the
    fused estimate, as the training itself would choose it. Those of `ulag` are the same in each.
    """
    recipe = recipe_of(kind, gradient)
    corpora = {"train": from_clips(train), "valid": from_clips(valid)}
    task = build(recipe, corpora["train"], seed)
    if task.made is not None:
        return cast(Numbers, task.made.double().numpy())
    best, last, chosen = float("inf"), 1, torch.zeros(0)
    for epoch in range(1, epochs + 1):
        if epoch > last + PATIENCE:
            break
        _, targets, _ = train_epoch(task, epoch, progress)
        found = estimate(task, corpora["valid"]).sentiment
        error = float((found - corpora["valid"].labels).abs().mean())
        # In epoch 1 every label is still the clip's.
        if epoch > 1 and error < best:
            best, last, chosen = error, epoch, targets
    return cast(Numbers, chosen.double().numpy())


def recipe_of(kind: Labels, gradient: Gradient = "full") -> JointRecipe:
    """Return the paper's preset for CH-SIMS with softmax attention over the words.

    Twice the release's steps per epoch, and its rate of text and fusion for voice and face too,
    which are simulated here.
    """
    return JointRecipe(
        kind="joint",
        name="people",
        data=DataTable(form="sims"),
        model=ModelTable(preset="paper-sims", tam="softmax", labels=kind),
        labels=LabelTable(gradient=gradient),
        audio=Group(rate=1e-3, decay=1e-2),
        vision=Group(rate=1e-3, decay=1e-2),
        other=Group(rate=1e-3),
        batch=64,
        accumulate=1,
    )
