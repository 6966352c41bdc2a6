"""Cross-validation of one head by groups or corpora: none is in training and in validation.

Knows a training file's tables and feature files. Knows no front end; writes no checkpoint.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..data.clips import DataError
from ..data.corpus import Corpus, Key
from ..data.validation_split import folds as split_folds
from ..evaluation.metrics import mosi_metrics
from ..nn.branch import Branch
from ..nn.config import preset
from .branch_batches import read_files, repeat_pictures
from .heads_recipe import BranchRecipe, HeadsRecipe
from .progress import Log
from .recipe_file import load_recipe
from .speaker_level import SpeakerLevels
from .train_branch import predict, train_branch

MEASURED = ("MAE", "Corr", "Acc2_non0")
Array = npt.NDArray[np.floating[Any]]
BEFORE = 8
"""Other clips of its group in a clip's running level for `Corr_heard`."""


def crossval(path: Path, head: str, folds: int, log: Log, by: Key = "groups") -> dict[str, object]:
    """Train a head once per fold and measure it on the groups that it was not trained on.

    Every epoch of the recipe is run and the last weights are used, so nothing about the validated
    groups enters; `valid_groups` of the file is not looked at.

    Args:
        path: Training file; relative paths in it count from the working directory.
        head: `audio` or `vision`, or `text` where the file has a table [text].
        folds: Parts into which the groups are split, in their order.
        log: Called with a line of progress.
        by: What is split: speakers (`groups`), or data sets (`corpora`).

    Returns:
        `head`, `folds`, `n`; MAE, Corr and Acc2_non0 as means over the folds; `Corr_all` over all
        clips at once; and per fold its groups and all figures, under `rows`. Each clip is scored
        from the initial state, but for `Corr_heard`, where a branch takes features relative to
        their running level: there the level has seen eight other clips of the same group.

    Raises:
        DataError: If the file has no such head, or a feature file cannot be used.
    """
    recipe = load_recipe(path, HeadsRecipe)
    table = recipe.tables.get(head)
    if not isinstance(table, BranchRecipe):
        raise DataError(f"{path} has no table [{head}] of feature files: name one that it has")
    table = table.model_copy(update={"choose": False})
    corpus = read_files(table.train, head)
    rows, estimates = [], []
    parts = split_folds(getattr(corpus, by), folds)
    labels = []
    for number, names in enumerate(parts):
        train, valid = corpus.without(names, by)
        figures, estimate = _fold(table, head, train, valid, recipe.seed, log)
        rows.append({"groups": names, **figures})
        estimates.append(estimate)
        labels.append(valid.labels.numpy())
        log(f"fold {number + 1}/{folds}: " + ", ".join(f"{k} {figures[k]:.3f}" for k in MEASURED))
    measured = [key for key in (*MEASURED, "Corr_heard") if key in rows[0]]
    means = {key: float(np.mean([row[key] for row in rows])) for key in measured}
    together = mosi_metrics(np.concatenate(estimates), np.concatenate(labels))
    report = {"head": head, "folds": folds, "n": together["n"], **means}
    return {**report, "Corr_all": together["Corr"], "rows": rows}


def _fold(
    recipe: BranchRecipe, head: str, train: Corpus, valid: Corpus, seed: int, log: Log
) -> tuple[dict[str, float], Array]:
    """Return figures and estimates of the clips that are only validated."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    config = preset("stream")
    branch = Branch(getattr(config, head), config)
    figures = train_branch(branch, head, train, valid, recipe, rng, log)
    valid = repeat_pictures(valid, head, recipe.still)
    if branch.encoder.centred:
        every, counts = np.arange(len(valid)), np.full(len(valid), BEFORE)
        speakers = SpeakerLevels(branch.encoder, valid.values[head], valid.groups)
        later = predict(branch, valid, head, speakers.levels(every, counts, rng)).numpy()
        figures["Corr_heard"] = mosi_metrics(later, valid.labels.numpy())["Corr"]
    return figures, predict(branch, valid, head).numpy()
