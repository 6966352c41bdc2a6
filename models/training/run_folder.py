"""The folder of one training run: the state to resume from, its curves, and its best checkpoint.

    runs/NAME/seed-1/last.safetensors   model, optimiser, labels and figures after the last epoch
                     best.safetensors   checkpoint of the epoch with the lowest validation L1
                     metrics.csv        one row per epoch
                     labels.csv         generated labels of some training clips over the epochs
                     attention.json     attention over time of some validation clips, best epoch
                     events.out.*       the same curves for TensorBoard, where it is installed

Knows tensors by name, and files. Knows no loss and no batch. Nothing random is stored: all draws
of an epoch come from the seed and the epoch's number.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..data.clips import DataError
from .joint_recipe import JointRecipe, labels_of, least_weight
from .progress import Log, Record
from .ulgm_labels import Ulgm

LAST = "last.safetensors"
BEST = "best.safetensors"
FREE = {"name", "seeds", "epochs", "patience", "threads", "ablate"}
"""Settings that may change before a run is resumed."""


@dataclass
class Journal:
    """The epochs of a run that are done."""

    history: list[Record] = field(default_factory=list)
    """Figures of each epoch."""
    best: int = 0
    """Epoch, from 1, with the lowest validation L1; 0 = none yet."""
    reached: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    """Per modality the sum of its task's weights so far; 0 = its head was never trained."""
    labels: list[list[list[float]]] = field(default_factory=list)
    """Per epoch, for the same few clips: y, then the targets of text, audio, vision."""

    @property
    def epoch(self) -> int:
        """Return the number of epochs that are done."""
        return len(self.history)


@dataclass(frozen=True)
class Job:
    """Everything that training changes."""

    net: nn.Module
    optimiser: torch.optim.Optimizer
    ulgm: Ulgm | None
    made: Tensor | None
    """Labels (C, M) that were made before the first epoch (`ulag_labels`)."""

    def tensors(self) -> dict[str, Tensor]:
        """Return it as tensors under flat names."""
        out = {f"net.{name}": tensor for name, tensor in self.net.state_dict().items()}
        for place, state in self.optimiser.state_dict()["state"].items():
            out |= {f"optimiser.{place}.{key}": tensor for key, tensor in state.items()}
        if self.ulgm is not None:
            out |= {f"labels.{name}": tensor for name, tensor in self.ulgm.tensors().items()}
        if self.made is not None:
            out["labels.made"] = self.made
        return out

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what `tensors` returned.

        Raises:
            ValueError: If a tensor is missing or left over, or has another shape.
            RuntimeError: Likewise.
        """
        parts: dict[str, dict[str, Tensor]] = {"net": {}, "optimiser": {}, "labels": {}}
        for name, tensor in tensors.items():
            part, _, key = name.partition(".")
            parts[part][key] = tensor
        self.net.load_state_dict(parts["net"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["optimiser"].items():
            place, _, key = name.partition(".")
            state.setdefault(int(place), {})[key] = tensor
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        if self.ulgm is not None:
            self.ulgm.restore(parts["labels"])
        if self.made is not None:
            self.made.copy_(parts["labels"]["made"])


def save_last(folder: Path, job: Job, journal: Journal, recipe: JointRecipe) -> None:
    """Write all that is needed to resume, atomically."""
    write_state(folder, job.tensors(), settings(recipe), vars(journal))


def load_last(folder: Path, job: Job, recipe: JointRecipe) -> Journal:
    """Restore a job from its folder; a folder without a finished epoch gives an empty journal.

    Raises:
        DataError: If the file is damaged or of other settings.
    """
    journal = Journal()

    def restore(tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        job.restore(tensors)
        vars(journal).update(vars(Journal(**meta)))

    read_state(folder, settings(recipe), restore)
    return journal


def write_state(
    folder: Path, tensors: Mapping[str, Tensor], now: dict[str, object], meta: object
) -> None:
    """Write the state that a run resumes from, atomically.

    Args:
        folder: Of the run.
        tensors: No two of them share memory.
        now: The settings; plain values.
        meta: All else, plain values.
    """
    temporary = folder / f"{LAST}.partial"
    flat = {name: tensor.contiguous() for name, tensor in tensors.items()}
    text = json.dumps({"journal": meta, "settings": now})
    save_file(flat, temporary, metadata={"tamulag": text})
    temporary.replace(folder / LAST)


def read_state(
    folder: Path,
    now: dict[str, object],
    restore: Callable[[dict[str, Tensor], dict[str, Any]], None],
) -> bool:
    """Pass what `write_state` wrote to `restore`; return whether there was anything.

    Raises:
        DataError: If the file is damaged or of other settings.
    """
    path = folder / LAST
    if not path.is_file():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads((file.metadata() or {})["tamulag"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        was = meta["settings"]
        differ = sorted(key for key in was | now if was.get(key) != now.get(key))
        if differ:
            raise DataError(
                f"{path} was made with other settings of {', '.join(differ)}: "
                "set them back, or choose another name"
            )
        restore(tensors, meta["journal"])
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise DataError(f"{path} cannot be gone on from ({error}): remove its folder") from error
    return True


def settings(recipe: JointRecipe) -> dict[str, object]:
    """Return what must be the same to resume a run."""
    out: dict[str, Any] = recipe.model_dump(mode="json", exclude=FREE)
    out["labels"]["floor"] = least_weight(recipe)
    if labels_of(recipe) == "ulag":
        # Runs without it were made when the word meant what `ulag_release` means now.
        out["ulag"] = "out of fold"
    return out


def write_tables(folder: Path, journal: Journal) -> None:
    """Rewrite `metrics.csv` and `labels.csv`, so that nothing is in them twice."""
    write_metrics(folder, journal.history)
    _write(
        folder / "labels.csv",
        ["epoch", "clip", "label", "text", "audio", "vision"],
        [
            [epoch, clip, *values]
            for epoch, sample in enumerate(journal.labels, 1)
            for clip, values in enumerate(sample)
        ],
    )


def write_metrics(folder: Path, history: Sequence[Record]) -> None:
    """Rewrite `metrics.csv`: the figures of each epoch."""
    names = list(dict.fromkeys(key for record in history for key in record))
    rows = [[record.get(name, "") for name in names] for record in history]
    _write(folder / "metrics.csv", names, rows)


def _write(path: Path, names: list[str], rows: Sequence[Sequence[object]]) -> None:
    temporary = path.with_suffix(".partial")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    temporary.replace(path)


@contextmanager
def open_curves(
    folder: Path | None, epoch: int, log: Log
) -> Iterator[Callable[[Record, int], None]]:
    """Yield a function that adds an epoch's figures to the curves of a folder for TensorBoard.

    Args:
        folder: Of the run; None: nothing is written.
        epoch: Epochs that are done; what a stopped run wrote of later ones is hidden.
        log: Called once where TensorBoard is not installed: figures are in metrics.csv alone then.
    """
    if folder is None:
        yield lambda _record, _epoch: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log("TensorBoard is not installed (`pip install tensorboard`): curves go to CSV only")
        yield lambda _record, _epoch: None
        return
    writer = SummaryWriter(str(folder), purge_step=epoch + 1)

    def add(record: Record, epoch: int) -> None:
        for name, value in record.items():
            writer.add_scalar(name.replace(".", "/", 1), value, epoch)

    try:
        yield add
    finally:
        writer.close()
