"""Cross-validation of one head by groups or corpora: none is in training and in validation.

Knows a training file's tables and feature files. Knows no front end; writes no checkpoint.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..data.clips import VARIED, DataError
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


def crossval(path: Path, head: str, folds: int, log: Log, by: Key = "groups") -> dict[str, Any]:
    """Train a head once per fold and measure it on the groups that it was not trained on.

    Every epoch of the recipe is run and the last weights are used, so nothing about the validated
    groups enters. `valid_groups` of the file is not looked at where groups are split. Where corpora
    are, these groups of the other corpora are held out of every fold's training and measured too:
    how a head does on people of corpora that it has heard, beside one that it has not. Clips whose
    sound is varied are trained on, never measured.

    Args:
        path: Training file; relative paths in it count from the working directory.
        head: `audio` or `vision`, or `text` where the file has a table [text].
        folds: Parts into which the groups are split, in their order.
        log: Called with a line of progress.
        by: What is split: speakers (`groups`), or data sets (`corpora`).

    Returns:
        `head`, `folds`, `n`; MAE, Corr and Acc2_non0 as means over the folds; `Corr_all` over all
        clips at once; `of_corpora`, as `spread` has it, over all folds; and per fold its groups and
        all figures, under `rows`, with `held_out`, as `spread` has it, of the people held out. Each
        clip is scored from the initial state, but for `Corr_heard`, where a branch takes features
        relative to their running level: there the level has seen eight other clips of the group.

    Raises:
        DataError: If the file has no such head, or a feature file cannot be used.
    """
    recipe = load_recipe(path, HeadsRecipe)
    table = recipe.tables.get(head)
    if not isinstance(table, BranchRecipe):
        raise DataError(f"{path} has no table [{head}] of feature files: name one that it has")
    table = table.model_copy(update={"choose": False})
    corpus = read_files(table.train, head)
    measured = corpus.without([VARIED], "modes")[0]
    held = table.valid_groups if by == "corpora" else []
    rows: list[dict[str, Any]] = []
    scores, labels, corpora = [], [], []
    parts = split_folds(getattr(measured, by), folds)
    for number, names in enumerate(parts):
        valid = measured.without(names, by)[1]
        train = corpus.without(names, by)[0].without(held)[0]
        figures, branch = _fold(table, head, train, valid, recipe.seed, log)
        valid = repeat_pictures(valid, head, table.still)
        scores.append(predict(branch, valid, head).numpy())
        labels.append(valid.labels.numpy())
        corpora += valid.corpora
        row = {"groups": names, **figures}
        known = measured.without(names, by)[0].without(held)[1]
        if len(known):
            estimate = predict(branch, known, head).numpy()
            row["held_out"] = spread(estimate, known.labels.numpy(), known.corpora)
        rows.append(row)
        log(f"fold {number + 1}/{folds}: " + ", ".join(f"{k} {figures[k]:.3f}" for k in MEASURED))
    keys = [key for key in (*MEASURED, "Corr_heard") if key in rows[0]]
    # The correlation of a corpus that is all neutral is not a number.
    means = {key: float(np.nanmean([row[key] for row in rows])) for key in keys}
    together, truth = np.concatenate(scores), np.concatenate(labels)
    report = {"head": head, "folds": folds, "n": len(truth), **means}
    report["Corr_all"] = mosi_metrics(together, truth)["Corr"]
    report["of_corpora"] = spread(together, truth, corpora)
    return {**report, "rows": rows}


def spread(scores: Array, labels: Array, corpora: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return of each data set n, MAE, Corr, and mean, deviation and beyond_1 of the estimates.

    Args:
        scores: (N,) estimates; `beyond_1` is the share of them that is further than 1 from 0.
        labels: (N,).
        corpora: Data set of each.
    """
    out, names = {}, np.array(corpora)
    for name in sorted(set(corpora)):
        score, label = scores[names == name], labels[names == name]
        figures = mosi_metrics(score, label)
        out[name] = {key: figures[key] for key in ("n", "MAE", "Corr")} | {
            "mean": float(score.mean()),
            "deviation": float(score.std()),
            "beyond_1": float((np.abs(score) > 1).mean()),
        }
    return out


def _fold(
    recipe: BranchRecipe, head: str, train: Corpus, valid: Corpus, seed: int, log: Log
) -> tuple[dict[str, float], Branch]:
    """Return figures of the clips that are only validated, and the trained branch."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    config = preset("stream")
    branch = Branch(recipe.shape(getattr(config, head)), config)
    figures = train_branch(branch, head, train, valid, recipe, rng, log)
    valid = repeat_pictures(valid, head, recipe.still)
    if branch.encoder.centred:
        every, counts = np.arange(len(valid)), np.full(len(valid), BEFORE)
        speakers = SpeakerLevels(branch.encoder, valid.values[head], valid.groups)
        later = predict(branch, valid, head, speakers.levels(every, counts, rng)).numpy()
        figures["Corr_heard"] = mosi_metrics(later, valid.labels.numpy())["Corr"]
    return figures, branch
