"""By-group cross-validation of one modality's recipe: no speaker is in training and in validation.

Knows a training file's tables and feature files. Knows no front end; keeps no checkpoint.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..data.clips import DataError, read_clips
from ..evaluation.metrics import mosi_metrics
from ..nn.branch import Branch
from ..nn.config import preset
from .branch_batches import BranchRecipe, read_rows
from .run_folder import Log
from .speaker_level import SpeakerLevels
from .train_branch import predict, train_branch
from .train_heads import read_recipe

MEASURED = ("MAE", "Corr", "Acc2_non0")
Array = npt.NDArray[np.floating[Any]]
BEFORE = 8
"""Other clips of its group that a clip's running level has heard for `Corr_heard`."""


def parts(groups: Sequence[str], folds: int) -> list[list[str]]:
    """Split groups in their order into `folds` runs of nearly equal length.

    Raises:
        DataError: If there are fewer groups than folds.
    """
    if len(groups) < folds:
        raise DataError(f"folds = {folds}: there are {len(groups)} groups, so at most that many")
    return [list(part) for part in np.array_split(np.array(groups), folds)]


def crossval(path: Path, head: str, folds: int, log: Log) -> dict[str, object]:
    """Train a head once per fold and measure it on the groups that it has not heard or seen.

    Every epoch of the recipe is run and the last weights are kept, so nothing about the held-out
    groups enters; `valid_groups` of the file is not looked at.

    Args:
        path: Training file; relative paths in it count from the working directory.
        head: `audio` or `vision`, or `text` where the file has a table [text].
        folds: Parts into which the groups are split, in their order.
        log: Called with a line of progress.

    Returns:
        `head`, `folds`, `n`; MAE, Corr and Acc2_non0 as means over the folds; `Corr_all` over all
        clips at once; and per fold its groups and all figures, under `rows`. Each clip is scored
        from the initial state, but for `Corr_heard`, where a branch takes features relative to
        their running level: there the level has heard eight other clips of the same group.

    Raises:
        DataError: If the file has no such head, or a feature file cannot be used.
    """
    recipe = read_recipe(path)
    how = getattr(recipe, head, None)
    if not isinstance(how, BranchRecipe):
        raise DataError(f"{path} has no table [{head}] of feature files: name one that it has")
    groups = sorted({clip.group for file in how.train for clip in read_clips(file)})
    rows, estimates, labels = [], [], []
    for number, held in enumerate(parts(groups, folds)):
        figures, estimate, label = _fold(how, head, held, recipe.seed, log)
        rows.append({"groups": held, **figures})
        estimates.append(estimate)
        labels.append(label)
        log(f"fold {number + 1}/{folds}: " + _told(figures))
    measured = [key for key in (*MEASURED, "Corr_heard") if key in rows[0]]
    means = {key: float(np.mean([row[key] for row in rows])) for key in measured}
    together = mosi_metrics(np.concatenate(estimates), np.concatenate(labels))
    report = {"head": head, "folds": folds, "n": together["n"], **means}
    return {**report, "Corr_all": together["Corr"], "rows": rows}


def _fold(
    how: BranchRecipe, head: str, held: list[str], seed: int, log: Log
) -> tuple[dict[str, float], Array, Array]:
    """Return figures, estimates and labels of the held groups' clips."""
    fold = how.model_copy(update={"valid": how.train, "valid_groups": held, "choose": False})
    rows, valid = read_rows(fold, head)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    config = preset("stream")
    branch = Branch(getattr(config, head), config)
    figures = train_branch(branch, rows, valid, fold, rng, log)
    label = valid.labels.numpy()
    if branch.encoder.centred:
        every, counts = np.arange(len(label)), np.full(len(label), BEFORE)
        levels = SpeakerLevels(branch.encoder, valid).levels(every, counts, rng)
        later = predict(branch, valid, fold, levels).numpy()
        figures["Corr_heard"] = mosi_metrics(later, label)["Corr"]
    return figures, predict(branch, valid, fold).numpy(), label


def _told(figures: dict[str, float]) -> str:
    return ", ".join(f"{key} {figures[key]:.3f}" for key in MEASURED)
