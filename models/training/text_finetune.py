"""Fine-tune the last layers of the text encoder together with the text branch.

    runs/NAME-text/last.safetensors   all that is needed to continue after the last epoch
                   metrics.csv        one row per epoch
                   events.out.*       the same for TensorBoard, where it is installed

Knows epochs, forks and files. Knows no audio, vision, stream or feature file.
"""

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.clips import DataError, TextRow, has_modes
from ..data.label_scale import Form
from ..data.text_csv import names_of, read_part
from ..data.validation_split import refuse_shared
from ..nn.branch import Branch
from ..text.text_encoder import TextEncoder
from .heads_recipe import TuneRecipe
from .progress import Log, Progress, Record, silent
from .run_folder import open_curves, read_state, write_metrics, write_state
from .text_network import FIXED, Sentences, TextNet, TuneRun, evaluate, start_run, train_epoch
from .weights import Weights, copied, mean_weights, replaced

SHOWN = ("MAE", "Corr", "Acc2_non0", "Acc2")
SHAPE = {"recurrent", "tam"}
"""Keys of the branch's shape, by which its weights are known anyway."""
SAMPLE = 1000
"""Sentences from which mean and deviation of the token states are taken."""


@dataclass
class _Best:
    """The weights with the lowest validation MAE, the mean over the files, each counted once."""

    net: TextNet
    encoder: TextEncoder
    checks: Mapping[str, Sentences]
    form: Form
    log: Log
    mae: float = float("inf")
    weights: Weights = field(default_factory=dict)

    def consider(self, name: str, weights: Weights) -> Record:
        """Measure weights and store them if they are better; return figures. The net's own stay."""
        with replaced(self.net, weights):
            scores = self.scores()
        mae = sum(score["MAE"] for score in scores.values()) / len(scores)
        self.log(f"  {name}: {_summary(scores)}")
        if mae < self.mae:
            self.mae, self.weights = mae, deepcopy(weights)
        return _flat(scores)

    def apply(self, start: Weights, kept: float) -> Record:
        """Give the network the best weights and return their figures.

        Args:
            start: Those before the training.
            kept: Their share in what the network gets.

        Raises:
            DataError: If there are none.
        """
        if not self.weights:
            raise DataError("no epoch has a finite validation MAE: lower the rates of [tune]")
        mixed = {name: t.lerp(start[name], kept) for name, t in self.weights.items()}
        self.net.load_state_dict(self.net.state_dict() | mixed)
        self.net.eval()
        return _flat(self.scores())

    def scores(self) -> dict[str, Record]:
        """Return the figures of the network as it is, per validation file."""
        return {
            name: evaluate(self.net, self.encoder, rows, self.form)
            for name, rows in self.checks.items()
        }


@dataclass
class _Journal:
    """The epochs of a training that are done, beside its weights."""

    parting: Weights = field(default_factory=dict)
    """The state from which the forks start; empty until they part."""
    parted: int = 0
    """Steps until then."""
    ends: list[Weights] = field(default_factory=list)
    """Averaged weights of each fork that is done."""
    history: list[Record] = field(default_factory=list)
    """Figures of each epoch that is done, fork after fork."""


@dataclass(frozen=True)
class _Training:
    """A training with its data."""

    recipe: TuneRecipe
    encoder: TextEncoder
    rng: np.random.Generator
    rows: Sentences
    extra: Sentences
    run: TuneRun
    start: Weights
    """What is trained, as it was before."""
    best: _Best
    journal: _Journal
    settings: dict[str, object]
    """What must be the same to resume it."""


def finetune(
    encoder: TextEncoder,
    branch: Branch,
    recipe: TuneRecipe,
    rng: np.random.Generator,
    log: Log,
    *,
    progress: Progress = silent,
    folder: Path | None = None,
) -> Record:
    """Train in place with the L1 loss; use the averaged weights of the best epoch, or their mean.

    The validation MAE is the mean over the files of `valid`, each counted once.

    Args:
        encoder: Its last layers are trained.
        branch: Trained with it.
        recipe: Files, sizes, rates.
        rng: Draws everything that torch does not.
        log: Called with a line per epoch.
        progress: Called with the current work, how much of it is done, and of how much.
        folder: Where each finished epoch is stored; a training that is there is resumed, to the
            same numbers. None: nothing is stored.

    Returns:
        Metrics per validation file, e.g. `mosi.Corr`.

    Raises:
        DataError: If a file cannot be used, is trained on and validated, or the folder
            is of another training; or if no epoch has a finite validation MAE.
    """
    training = _prepared(encoder, branch, recipe, rng, log)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        _load(folder, training)
    journal = training.journal
    with open_curves(folder, len(journal.history), log) as add:
        for fork, epoch in epoch_order(recipe)[len(journal.history) :]:
            journal.history.append(_epoch(training, fork, epoch, progress))
            if folder is not None:
                _save(folder, training)
            add(journal.history[-1], len(journal.history))
    if len(journal.ends) > 1:
        training.best.consider(f"mean of {len(journal.ends)} forks", mean_weights(journal.ends))
    return training.best.apply(training.start, recipe.kept)


def epoch_order(recipe: TuneRecipe) -> list[tuple[int, int]]:
    """Return the epochs in their order: fork and epoch, both from 0; fork 0 has the common ones."""
    common = min(recipe.extra_epochs, recipe.epochs)
    own = [(fork, epoch) for fork in range(recipe.forks) for epoch in range(common, recipe.epochs)]
    return [(0, epoch) for epoch in range(common)] + own


def _prepared(
    encoder: TextEncoder, branch: Branch, recipe: TuneRecipe, rng: np.random.Generator, log: Log
) -> _Training:
    remedy = "add a column mode with train and valid in its rows"
    refuse_shared([*recipe.train, *recipe.extra], recipe.valid, remedy, has_modes)
    rows = _words(read_part(recipe.train, "train", recipe.form), encoder)
    extra = _words(read_part(recipe.extra, "train", "mosi"), encoder)
    checks = {
        name: _words(read_part([path], "valid", recipe.form), encoder)
        for name, path in zip(names_of(recipe.valid), recipe.valid, strict=True)
    }
    settings = recipe.model_dump(mode="json", exclude={"data", "encoder", *SHAPE}) | FIXED
    settings |= {"seed": rng.bit_generator.state, "rows": len(rows), "encoder": encoder.name}
    if recipe.start is None:
        _standardise(encoder, branch, rows, rng)
    _adapt(encoder, recipe)
    seen = len(rows) * recipe.epochs + len(extra) * recipe.extra_epochs
    net = TextNet(encoder, branch)
    run = start_run(net, recipe, math.ceil(seen / recipe.batch))
    best = _Best(net, encoder, checks, recipe.form, log)
    start = copied(run.average)
    return _Training(recipe, encoder, rng, rows, extra, run, start, best, _Journal(), settings)


def _adapt(encoder: TextEncoder, recipe: TuneRecipe) -> None:
    """Give the encoder the adapters that are to be trained.

    Raises:
        DataError: If it has fewer layers, or other adapters already.
    """
    there = len(encoder.network.encoder.layer)  # type: ignore[arg-type,union-attr]
    if recipe.layers > there:
        raise DataError(f"[tune] layers = {recipe.layers}: {encoder.name} has {there}")
    if encoder.rank not in (0, recipe.adapters):
        raise DataError(
            f"[tune] start = {recipe.start} has adapters of rank {encoder.rank}: set adapters = "
            f"{encoder.rank}"
        )
    if recipe.adapters:
        encoder.adapt(recipe.layers, recipe.adapters)


def _epoch(training: _Training, fork: int, epoch: int, progress: Progress) -> Record:
    """Train and measure one epoch of a fork; return its figures."""
    recipe, run, journal = training.recipe, training.run, training.journal
    common = min(recipe.extra_epochs, recipe.epochs)
    if recipe.forks > 1 and epoch == common:
        if fork:
            run.restore(journal.parting, journal.parted)
        else:
            journal.parting, journal.parted = run.tensors(), run.step
    of = f", fork {fork + 1}/{recipe.forks}" if recipe.forks > 1 and epoch >= common else ""
    work = f"epoch {epoch + 1}/{recipe.epochs}{of}"
    rows = training.rows + training.extra if epoch < common else training.rows
    loss = train_epoch(run, training.encoder, rows, recipe, training.rng, progress, work)
    record = {"epoch": epoch + 1.0, "fork": fork + 1.0, "loss.total": loss}
    record |= training.best.consider(work, run.average)
    if recipe.forks > 1 and epoch == recipe.epochs - 1:
        journal.ends.append(copied(run.average))
    return record


def _save(folder: Path, training: _Training) -> None:
    """Write all that is needed to resume, atomically, and the table of epochs."""
    journal, best = training.journal, training.best
    parts = {"run": training.run.tensors(), "best": best.weights, "parting": journal.parting}
    parts |= {f"end-{place}": weights for place, weights in enumerate(journal.ends)}
    tensors = {f"{part}.{name}": t for part, group in parts.items() for name, t in group.items()}
    meta = {
        "history": journal.history,
        "parted": journal.parted,
        "step": training.run.step,
        "mae": best.mae,
        "rng": training.rng.bit_generator.state,
    }
    write_state(folder, tensors | {"torch": torch.get_rng_state()}, training.settings, meta)
    write_metrics(folder, journal.history)


def _load(folder: Path, training: _Training) -> None:
    """Resume from what `_save` wrote; a folder without a finished epoch changes nothing."""
    best, journal = training.best, training.journal

    def restore(tensors: Weights, meta: dict[str, Any]) -> None:
        parts: dict[str, Weights] = {"run": {}, "best": {}, "parting": {}}
        torch.set_rng_state(tensors.pop("torch"))
        for name, tensor in tensors.items():
            part, _, key = name.partition(".")
            parts.setdefault(part, {})[key] = tensor
        training.run.restore(parts["run"], meta["step"])
        training.rng.bit_generator.state = meta["rng"]
        best.weights, best.mae = parts["best"], meta["mae"]
        journal.parting, journal.parted = parts["parting"], meta["parted"]
        journal.history = meta["history"]
        journal.ends = [parts[f"end-{place}"] for place in range(len(parts) - 3)]

    if read_state(folder, training.settings, restore):
        done, total = len(journal.history), len(epoch_order(training.recipe))
        best.log(f"goes on after {done} of {total} epochs")


def _words(rows: Sequence[TextRow], encoder: TextEncoder) -> Sentences:
    return [(encoder.split(row.text), row.label) for row in rows]


def _standardise(
    encoder: TextEncoder, branch: Branch, rows: Sentences, rng: np.random.Generator
) -> None:
    """Set the branch's mean and deviation from the token states before training."""
    some = rng.choice(len(rows), min(SAMPLE, len(rows)), replace=False)
    states = np.concatenate(encoder.encode_batch([" ".join(rows[i][0]) for i in some]))
    branch.encoder.mean.copy_(torch.from_numpy(states.mean(axis=0)))
    branch.encoder.deviation.copy_(torch.from_numpy(states.std(axis=0)).clamp(min=1e-3))


def _flat(scores: Mapping[str, Record]) -> Record:
    return {f"{name}.{key}": value for name, s in scores.items() for key, value in s.items()}


def _summary(scores: dict[str, dict[str, float]]) -> str:
    return "; ".join(
        f"{name} " + " ".join(f"{key} {s[key]:.4f}" for key in SHOWN if key in s)
        for name, s in scores.items()
    )
