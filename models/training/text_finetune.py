"""Fine-tune the last layers of the text encoder together with the text branch.

    runs/NAME-text/last.safetensors   all that is needed to go on after the last epoch
                   metrics.csv        one row per epoch
                   events.out.*       the same for TensorBoard, where it is installed

Knows epochs, forks and files. Knows no audio, vision, stream or feature file.
"""

import json
import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.clips import DataError, TextRow
from ..data.label_scale import Form
from ..data.text_csv import names_of, read_part, refuse_shared
from ..nn.branch import Branch
from ..text.text_encoder import TextEncoder
from .run_folder import (
    Log,
    Record,
    Tell,
    kept_curves,
    quiet,
    read_state,
    write_metrics,
    write_state,
)
from .text_network import Rows, Run, TextNet, TuneRecipe, Weights, begin, evaluate, train_epoch

SHOWN = ("MAE", "Corr", "Acc2_non0", "Acc2")
SAMPLE = 1000
"""Sentences from which mean and deviation of the token states are taken."""


@dataclass
class _Best:
    """The weights with the lowest validation MAE, the mean over the files, each counted once."""

    net: TextNet
    encoder: TextEncoder
    checks: Mapping[str, Rows]
    form: Form
    log: Log
    mae: float = float("inf")
    weights: Weights = field(default_factory=dict)

    def consider(self, name: str, weights: Weights) -> Record:
        """Measure weights, keep them if they are better; return figures. The net's own stay."""
        current = {key: value.clone() for key, value in self.net.state_dict().items()}
        self.net.load_state_dict(current | weights)
        scores = self.scores()
        self.net.load_state_dict(current)
        mae = sum(score["MAE"] for score in scores.values()) / len(scores)
        self.log(f"  {name}: {_summary(scores)}")
        if mae < self.mae:
            self.mae, self.weights = mae, deepcopy(weights)
        return _flat(scores)

    def take(self) -> Record:
        """Give the network the best weights and return their figures.

        Raises:
            DataError: If there are none.
        """
        if not self.weights:
            raise DataError("no epoch has a finite validation MAE: lower the rates of [tune]")
        self.net.load_state_dict(self.net.state_dict() | self.weights)
        self.net.eval()
        return _flat(self.scores())

    def scores(self) -> dict[str, Record]:
        """Return the figures of the network as it is, per validation file."""
        return {
            name: evaluate(self.net, self.encoder, rows, self.form)
            for name, rows in self.checks.items()
        }


@dataclass
class _Past:
    """What a training knows of its epochs, beside its weights."""

    parting: Weights = field(default_factory=dict)
    """What the forks go on from; empty until they part."""
    parted: int = 0
    """Steps until then."""
    ends: list[Weights] = field(default_factory=list)
    """Averaged weights of each fork that is done."""
    history: list[Record] = field(default_factory=list)
    """Figures of each epoch that is done, fork after fork."""


@dataclass(frozen=True)
class _Work:
    """A training with its data."""

    recipe: TuneRecipe
    encoder: TextEncoder
    rng: np.random.Generator
    rows: Rows
    extra: Rows
    run: Run
    best: _Best
    past: _Past
    settings: dict[str, object]
    """What must be the same to go on with it."""


def finetune(
    encoder: TextEncoder,
    branch: Branch,
    recipe: TuneRecipe,
    rng: np.random.Generator,
    log: Log,
    *,
    tell: Tell = quiet,
    folder: Path | None = None,
) -> Record:
    """Train in place with the L1 loss; keep the averaged weights of the best epoch, or their mean.

    The validation MAE is the mean over the files of `valid`, each counted once.

    Args:
        encoder: Its last layers are trained.
        branch: Trained with it.
        recipe: Files, sizes, rates.
        rng: Draws everything that torch does not.
        log: Called with a line per epoch.
        tell: Called with what is being done, how much of it is done, and of how much.
        folder: Where each finished epoch is kept; what is there is gone on with, to the same
            numbers. None: nothing is kept.

    Returns:
        Metrics per validation file, e.g. `mosi.Corr`.

    Raises:
        DataError: If a file cannot be used, is trained on and validated, or what the folder holds
            is of another training; or if no epoch has a finite validation MAE.
    """
    work = _prepared(encoder, branch, recipe, rng, log)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        _load(folder, work)
    past = work.past
    with kept_curves(folder, len(past.history), log) as add:
        for fork, epoch in turns(recipe)[len(past.history) :]:
            past.history.append(_turn(work, fork, epoch, tell))
            if folder is not None:
                _save(folder, work)
            add(past.history[-1], len(past.history))
    if len(past.ends) > 1:
        work.best.consider(f"mean of {len(past.ends)} forks", mean_weights(past.ends))
    return work.best.take()


def turns(recipe: TuneRecipe) -> list[tuple[int, int]]:
    """Return the epochs in their order: fork and epoch, both from 0; fork 0 has the common ones."""
    common = min(recipe.extra_epochs, recipe.epochs)
    own = [(fork, epoch) for fork in range(recipe.forks) for epoch in range(common, recipe.epochs)]
    return [(0, epoch) for epoch in range(common)] + own


def mean_weights(of: Sequence[Weights]) -> Weights:
    """Return the mean of each tensor over networks of one shape."""
    return {name: torch.stack([weights[name] for weights in of]).mean(dim=0) for name in of[0]}


def _prepared(
    encoder: TextEncoder, branch: Branch, recipe: TuneRecipe, rng: np.random.Generator, log: Log
) -> _Work:
    refuse_shared([*recipe.train, *recipe.extra], recipe.valid)
    rows = _worded(read_part(recipe.train, "train", recipe.form), encoder)
    extra = _worded(read_part(recipe.extra, "train", "mosi"), encoder)
    checks = {
        name: _worded(read_part([path], "valid", recipe.form), encoder)
        for name, path in zip(names_of(recipe.valid), recipe.valid, strict=True)
    }
    settings = json.loads(json.dumps(asdict(recipe), default=str))
    settings |= {"seed": rng.bit_generator.state, "rows": len(rows), "encoder": encoder.name}
    _standardise(encoder, branch, rows, rng)
    seen = len(rows) * recipe.epochs + len(extra) * recipe.extra_epochs
    net = TextNet(encoder, branch)
    run = begin(net, recipe, math.ceil(seen / recipe.batch))
    best = _Best(net, encoder, checks, recipe.form, log)
    return _Work(recipe, encoder, rng, rows, extra, run, best, _Past(), settings)


def _turn(work: _Work, fork: int, epoch: int, tell: Tell) -> Record:
    """Train and measure one epoch of a fork; return its figures."""
    recipe, run, past = work.recipe, work.run, work.past
    common = min(recipe.extra_epochs, recipe.epochs)
    if recipe.forks > 1 and epoch == common:
        if fork:
            run.restore(past.parting, past.parted)
        else:
            past.parting, past.parted = run.tensors(), run.step
    of = f", fork {fork + 1}/{recipe.forks}" if recipe.forks > 1 and epoch >= common else ""
    what = f"epoch {epoch + 1}/{recipe.epochs}{of}"
    rows = work.rows + work.extra if epoch < common else work.rows
    loss = train_epoch(run, work.encoder, rows, recipe, work.rng, tell, what)
    record = {"epoch": epoch + 1.0, "fork": fork + 1.0, "loss.total": loss}
    record |= work.best.consider(what, run.average)
    if recipe.forks > 1 and epoch == recipe.epochs - 1:
        past.ends.append({name: tensor.clone() for name, tensor in run.average.items()})
    return record


def _save(folder: Path, work: _Work) -> None:
    """Write all that is needed to go on, atomically, and the table of epochs."""
    past = work.past
    parts = {"run": work.run.tensors(), "best": work.best.weights, "parting": past.parting}
    parts |= {f"end-{place}": weights for place, weights in enumerate(past.ends)}
    tensors = {f"{part}.{name}": t for part, group in parts.items() for name, t in group.items()}
    meta = {
        "history": past.history,
        "parted": past.parted,
        "step": work.run.step,
        "mae": work.best.mae,
        "rng": work.rng.bit_generator.state,
    }
    write_state(folder, tensors | {"torch": torch.get_rng_state()}, work.settings, meta)
    write_metrics(folder, past.history)


def _load(folder: Path, work: _Work) -> None:
    """Go on from what `_save` wrote; a folder without a finished epoch changes nothing."""

    def restore(tensors: Weights, meta: dict[str, Any]) -> None:
        parts: dict[str, Weights] = {"run": {}, "best": {}, "parting": {}}
        torch.set_rng_state(tensors.pop("torch"))
        for name, tensor in tensors.items():
            part, _, key = name.partition(".")
            parts.setdefault(part, {})[key] = tensor
        work.run.restore(parts["run"], meta["step"])
        work.rng.bit_generator.state = meta["rng"]
        work.best.weights, work.best.mae = parts["best"], meta["mae"]
        past = work.past
        past.parting, past.parted, past.history = parts["parting"], meta["parted"], meta["history"]
        past.ends = [parts[f"end-{place}"] for place in range(len(parts) - 3)]

    if read_state(folder, work.settings, restore):
        work.best.log(f"goes on after {len(work.past.history)} of {len(turns(work.recipe))} epochs")


def _worded(rows: Sequence[TextRow], encoder: TextEncoder) -> Rows:
    return [(encoder.split(row.text), row.label) for row in rows]


def _standardise(
    encoder: TextEncoder, branch: Branch, rows: Rows, rng: np.random.Generator
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
