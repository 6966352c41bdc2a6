"""Train every seed of a training file, and measure how far the seeds differ.

Knows the run folder and the epochs of one seed. Knows no option of the model. An epoch is chosen by
the L1 of the fused estimate on the validation rows, each row counted once, and so is the seed whose
checkpoint is used; test rows, where they are measured, choose nothing.
"""

import json
import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ..data.clips import DataError
from ..data.corpus import Corpus
from ..nn.tam_ulag import MODALITIES
from ..runtime.checkpoint import Card, save
from .joint_recipe import JointRecipe, read_joint
from .progress import Log, Progress, Record
from .run_folder import BEST, LAST, Journal, load_last, open_curves, save_last, write_tables
from .train_joint import Task, build, load_splits, train_epoch
from .validation import Estimates, attention, estimate, figures, intervals

SAMPLE = 60
"""Training clips whose generated labels are stored of each epoch."""
IMPROVED = 1e-6
"""Least fall of the validation L1 that counts."""
CONFIDENCE = 0.95


def train(
    path: Path,
    out: Path,
    *,
    runs: Path = Path("runs"),
    resume: bool = False,
    log: Log,
    progress: Progress,
) -> Record:
    """Train all seeds and write the checkpoint of the one that is best on the validation rows.

    Args:
        path: Training file; relative paths in it count from the working directory.
        out: Checkpoint to write.
        runs: Folder in which the run has its own, by its name.
        resume: Continue a run that was stopped.
        log: Called with a line of progress.
        progress: Called with the current work, how much of it is done, and of how much.

    Returns:
        Mean and half width of the 95 % interval of each figure over the seeds.

    Raises:
        DataError: If a file cannot be used, or the run's folder is there without `resume`, or is
            not there with it.
    """
    recipe = read_joint(path)
    folder = runs / recipe.name
    if folder.exists() and not resume:
        raise DataError(f"{folder} exists: give --resume to go on with it, or choose another name")
    if resume and not folder.exists():
        raise DataError(
            f"--resume: there is no {folder} to go on with: leave it out, or see --runs"
        )
    torch.set_num_threads(recipe.threads or os.cpu_count() or 1)
    records = train_seeds(recipe, load_splits(recipe, log), folder, log=log, progress=progress)
    best = min(records, key=lambda seed: records[seed]["valid.MAE"])
    log(f"seed {best} is the best on the validation rows")
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / f"seed-{best}" / BEST, out)
    return summary(list(records.values()))


def train_seeds(
    recipe: JointRecipe, splits: Mapping[str, Corpus], folder: Path, *, log: Log, progress: Progress
) -> dict[int, Record]:
    """Train each seed, or resume it; return the figures of its best epoch."""
    records = {}
    for seed in recipe.seeds:
        records[seed] = train_seed(
            recipe, splits, seed, folder / f"seed-{seed}", log=log, progress=progress
        )
        log(f"seed {seed}: " + "  ".join(f"{k} {v:.4f}" for k, v in records[seed].items()))
    return records


def train_seed(
    recipe: JointRecipe,
    splits: Mapping[str, Corpus],
    seed: int,
    folder: Path,
    *,
    log: Log,
    progress: Progress,
) -> Record:
    """Train one seed, resumed where its folder has epochs of it, until nothing gets better.

    Returns:
        Figures of the best epoch: `valid.` and, if there are such rows, `test.`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    task = build(recipe, splits["train"], seed)
    journal = load_last(folder, task, recipe)
    with open_curves(folder, journal.epoch, log) as add:
        while journal.epoch < recipe.epochs and journal.epoch - journal.best < recipe.patience:
            record = _epoch(task, splits, journal, folder, progress)
            save_last(folder, task, journal, recipe)
            write_tables(folder, journal)
            add(record, journal.epoch)
            log(
                f"  seed {seed} epoch {journal.epoch}/{recipe.epochs}: "
                f"loss {record['loss.total']:.4f}, valid MAE {record['valid.MAE']:.4f}, "
                f"best in epoch {journal.best}, {record['seconds']:.1f} s"
            )
    if not journal.best:
        raise DataError(f"{folder}: no epoch has a finite validation L1: lower the rates")
    best = journal.history[journal.best - 1]
    return {key: value for key, value in best.items() if key.startswith(("valid.", "test."))}


def _epoch(
    task: Task, splits: Mapping[str, Corpus], journal: Journal, folder: Path, progress: Progress
) -> Record:
    """Train and measure one epoch; write what belongs to the best one."""
    begin = time.perf_counter()
    losses, targets, reached = train_epoch(task, journal.epoch + 1, progress)
    seconds = time.perf_counter() - begin
    form = task.recipe.data.form
    found = {name: estimate(task, splits[name], progress) for name in splits if name != "train"}
    record = {"epoch": journal.epoch + 1, "seconds": seconds, **losses}
    journal.reached = [a + b for a, b in zip(journal.reached, reached.tolist(), strict=True)]
    trained = _trained(journal)
    for name, what in found.items():
        measured = figures(what, splits[name], form, heads=trained)
        record |= {f"{name}.{k}": v for k, v in measured.items()}
    record |= {f"rate.{group['name']}": group["lr"] for group in task.optimiser.param_groups}
    best = math.inf if not journal.best else journal.history[journal.best - 1]["valid.MAE"]
    journal.history.append(record)
    journal.labels.append(_sample(task, targets))
    if record["valid.MAE"] < best - IMPROVED:
        journal.best = journal.epoch
        _store_best(task, journal, found["valid"], splits["valid"], folder)
    return record


def _trained(journal: Journal) -> list[str]:
    """Return the modalities whose own head had a weight so far."""
    return [name for name, sum_ in zip(MODALITIES, journal.reached, strict=True) if sum_ > 0]


def _sample(task: Task, targets: torch.Tensor) -> list[list[float]]:
    count = len(task.corpus.labels)
    rows = torch.linspace(0, count - 1, min(SAMPLE, count)).long()
    labels = task.corpus.labels[rows].unsqueeze(-1)
    chosen: list[list[float]] = torch.cat([labels, targets[rows]], dim=1).tolist()
    return chosen


def _store_best(
    task: Task, journal: Journal, found: Estimates, valid: Corpus, folder: Path
) -> None:
    """Write the checkpoint of this epoch, and the attention on some clips."""
    recipe = task.recipe
    present = found.present.any(dim=0).tolist()
    reached = _trained(journal)
    trained = {n: n in reached and here for n, here in zip(MODALITIES, present, strict=True)}
    source = str(recipe.data.packed or ", ".join(map(str, recipe.data.train)))
    measured = {k: v for k, v in journal.history[-1].items() if k.startswith("valid.")}
    own = recipe.data.packed is None or recipe.text.finetune
    card = Card(
        trained={"sentiment": True, **trained},
        interval=intervals(task, found, valid),
        data=dict.fromkeys(("sentiment", *(n for n in MODALITIES if trained[n])), source),
        figures=measured,
        text_encoder="all-minilm-l6-v2" if own else "packed",
    )
    network = task.net.network
    save(task.net.model, card, folder / BEST, None if network is None else network.state_dict())
    shown = json.dumps(attention(task, valid))
    (folder / "attention.json").write_text(shown, encoding="utf-8")


def forget(folder: Path) -> None:
    """Remove the state for resuming a finished run; its optimiser is most of its size."""
    for path in folder.glob(f"seed-*/{LAST}"):
        path.unlink()


def summary(records: Sequence[Record]) -> Record:
    """Return for each figure its mean over the seeds and, under `KEY.interval`, the half width.

    A figure that one of the seeds lacks, as a head was untrained there, is left out.
    """
    out = {}
    for key in records[0]:
        if not all(key in record for record in records):
            continue
        values = [record[key] for record in records]
        out[key] = sum(values) / len(values)
        if len(values) > 1 and not key.endswith(".n"):
            out[f"{key}.interval"] = mean_interval(values)
    return out


def mean_interval(values: Sequence[float]) -> float:
    """Return t s / sqrt(n), the half width of the 95 % interval of the mean of n >= 2 values.

    t is the 97.5 % quantile of Student's distribution with n - 1 degrees of freedom, s the sample
    deviation with n - 1 in its denominator.
    """
    count = len(values)
    mean = sum(values) / count
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    return student(count - 1) * spread / math.sqrt(count)


def student(freedom: int) -> float:
    """Return t with P(|T| <= t) = 0.95 for Student's T, by bisection of its closed form.

    With u = atan(t / sqrt(v)): P = sin u (1 + cos^2 u / 2 + 3 cos^4 u / 8 + ...), to the power
    v - 2, for even v; P = 2/pi (u + sin u (cos u + 2 cos^3 u / 3 + ...)), to the power v - 2, for
    odd v (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4).
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _share(middle, freedom) < CONFIDENCE else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _share(u: float, freedom: int) -> float:
    odd = freedom % 2
    term, total = (math.cos(u) if odd else 1.0), 0.0
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= math.cos(u) ** 2 * (power + 1) / (power + 2)
    total *= math.sin(u)
    return 2 / math.pi * (u + total) if odd else total
