"""Measure a checkpoint on labelled clips.

Knows clips, CSVs of texts, the text encoder and the metrics. Knows no front end and no stream.

The field scores a whole utterance with one number. So a clip is scored once, at its end, in one
forward pass from the initial state, with a window as long as the clip: attention sees all of it. A
clip in which a modality is missing scores 0 there, and is counted.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch

from ..data.batches import Batch, collate
from ..data.clips import Clip, DataError, TextRow, read_labelled
from ..data.corpus import from_clips
from ..data.label_scale import LIMITS, Form, label_scale
from ..data.prefix_texts import encode_prefixes
from ..nn.tam_ulag import LIMIT, MODALITIES, TamUlag
from ..runtime.checkpoint import Card, CheckpointError, load
from ..text.text_encoder import TextEncoder, encoder_for
from .metrics import METRICS

Head = Literal["text", "audio", "vision", "all"]

Row = TypeVar("Row")

SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Shares of a clip that are scored for anytime curves."""

BATCH = 32


@dataclass(frozen=True)
class Evaluation:
    """A head of a checkpoint, its text encoder, and the form of the figures."""

    model: TamUlag
    encoder: TextEncoder
    head: Head
    form: Form
    card: Card = field(default_factory=lambda: Card(trained={}))
    """Whose intervals are measured."""

    def texts(self, rows: Sequence[TextRow], share: float = 1.0) -> list[Clip]:
        """Return the clips of written texts, each of a share of its words.

        Args:
            rows: As `read_labelled` returns them.
            share: In (0, 1], of the first words; their number is rounded up.
        """
        words = [len(self.encoder.split(row.text)) for row in rows]
        return encode_prefixes(self.encoder, rows, [math.ceil(share * n - 1e-9) for n in words])

    def figures(self, clips: Sequence[Clip]) -> dict[str, float]:
        """Compare the estimates of clips, at least one, with their labels.

        Returns:
            n, MAE, Corr, Acc2_has0, Acc2_non0, F1_has0, F1_non0, Acc7 (`mosi`), or n, MAE, Corr,
            Acc2, Acc3, Acc5, F1 (`sims`); `missing`, the clips without an estimate; `mean` and
            `deviation` of the estimates and `beyond_1`, the share of them that is more than 1 from
            0, all in [-3, 3]; and `covered`, see the function.

        Raises:
            CheckpointError: If the checkpoint was trained on vectors of other sizes.
            DataError: If no clip has anything that the head could score.
        """
        found = self._compared(clips)
        refuse_nothing(found, self.head)
        return found

    def _compared(self, clips: Sequence[Clip]) -> dict[str, float]:
        check_sizes(
            self.model,
            {n: {c.values[n].shape[1] for c in clips if n in c.values} for n in MODALITIES},
        )
        scores, present = estimates(self.model, clips, self.head)
        inside = insides(self.model, self.card, clips, self.head, self.form)
        truth = np.array([clip.label for clip in clips])
        return compared(scores, present, inside, truth, self.form)

    def anytime(self, clips: Callable[[float], Sequence[Clip]]) -> list[dict[str, float]]:
        """Return the figures after each share of `SHARES`, under `heard`.

        Args:
            clips: Returns the clips cut to a share of their beginning.
        """
        rows = []
        for share in SHARES:
            rows.append({"heard": share, **self._compared(clips(share))})
        return rows


def compared(
    scores: np.ndarray, present: np.ndarray, inside: np.ndarray, truth: np.ndarray, form: Form
) -> dict[str, float]:
    """Compare estimates with labels, see `Evaluation.figures`.

    Args:
        scores: (N,) estimates in [-3, 3].
        present: (N,) bool, whether there is an estimate.
        inside: (N,) whether the label is inside the interval: 1, 0 or NaN, see `insides`.
        truth: (N,) labels in the range of the form.
        form: Of the figures.
    """
    predicted = np.where(present, scores, 0.0) * label_scale(form)
    found = METRICS[form](predicted, truth) | {"missing": int((~present).sum())}
    return found | _spread(scores[present]) | {"covered": _share(inside)}


def refuse_nothing(figures: Mapping[str, float], head: str) -> None:
    """Refuse figures of estimates that are all missing.

    Raises:
        DataError: If they are.
    """
    if figures["missing"] == figures["n"]:
        raise DataError(
            f"none of {figures['n']} clips has anything for the head {head}: nothing to "
            "measure; give other clips or another modality"
        )


def open_evaluation(
    checkpoint: str, *, head: Head = "text", form: Form = "mosi", window: int | None = None
) -> Evaluation:
    """Load a checkpoint to measure one of its heads.

    Args:
        checkpoint: Name or path.
        head: A modality, or `all` for the fused head.
        form: Of the figures.
        window: Ticks of the longest clip; None: that of the training.

    Raises:
        CheckpointError: If the checkpoint cannot be used or its head is untrained.
    """
    model, card = load(checkpoint, window=window)
    if not card.trained["sentiment" if head == "all" else head]:
        name = "fused" if head == "all" else head
        raise CheckpointError(f"checkpoint {checkpoint}: its {name} head is untrained")
    return Evaluation(model, encoder_for(checkpoint), head, form, card)


def read_rows(path: Path, form: Form = "mosi", mode: str | None = None) -> list[TextRow]:
    """Read the texts of a CSV of texts or of media files, with labels in the range of the form.

    Raises:
        DataError: If the CSV cannot be used or is empty.
    """
    return filled(read_labelled(path, mode=mode, limit=LIMITS[form]), path, "text")


def filled(rows: list[Row], path: Path, column: str) -> list[Row]:
    """Return the rows of a CSV, of which there is one at least.

    Args:
        rows: What was read.
        path: CSV.
        column: That stands beside the label.

    Raises:
        DataError: If there is none.
    """
    if not rows:
        raise DataError(f"{path} has no rows: expected a header {column},label and rows below it")
    return rows


def evaluate_texts(
    path: Path, checkpoint: str, progress: Callable[[int], None]
) -> dict[str, float]:
    """Compare the text head's estimates with the labels of a CSV, in the MOSI form.

    Args:
        path: CSV with the columns `text,label`, labels in [-3, 3].
        checkpoint: Name or path.
        progress: Called with the number of rows that are done.

    Raises:
        DataError: If the CSV cannot be used or is empty.
        CheckpointError: If the checkpoint cannot be used or its text head is untrained.
    """
    rows = read_rows(path)
    evaluation = open_evaluation(checkpoint)
    figures = evaluation.figures(evaluation.texts(rows))
    progress(len(rows))
    return figures


@torch.inference_mode()
def estimates(model: TamUlag, clips: Sequence[Clip], head: Head) -> tuple[np.ndarray, np.ndarray]:
    """Score each clip at its end.

    Args:
        model: Its window is at least as long as the longest clip.
        clips: Independent of each other.
        head: A modality, or `all` for the fused head.

    Returns:
        (N,) float32 estimates in [-3, 3], and (N,) bool whether there was anything to estimate.
    """
    scores, present = [], []
    for first in range(0, len(clips), BATCH):
        batch = whole(clips[first : first + BATCH])
        output = model(batch.ticks, batch.now)
        if head == "all":
            scores.append(output.sentiment[:, 0])
            present.append(output.present[:, 0].any(dim=-1))
        else:
            scores.append(output.heads[:, 0, MODALITIES.index(head)])
            present.append(output.present[:, 0, MODALITIES.index(head)])
    return torch.cat(scores).numpy(), torch.cat(present).numpy()


def covered(
    model: TamUlag, card: Card, clips: Sequence[Clip], head: Head, form: Form = "mosi"
) -> float:
    """Return the share of labels inside the 90 % interval, see `insides`.

    Returns:
        In [0, 1], or NaN where no clip counts.
    """
    return _share(insides(model, card, clips, head, form))


def _share(inside: np.ndarray) -> float:
    return float(np.nanmean(inside)) if np.isfinite(inside).any() else math.nan


@torch.inference_mode()
def insides(
    model: TamUlag, card: Card, clips: Sequence[Clip], head: Head, form: Form = "mosi"
) -> np.ndarray:
    """Return whether each label is inside the 90 % interval of the fused estimate.

    Args:
        model: Its window is at least as long as the longest clip.
        card: With the half widths.
        clips: Independent of each other.
        head: A modality that is alone in the fusion, or `all` for whatever is there.
        form: Range of the labels.

    Returns:
        (N,) float64: 1 or 0, NaN for a clip without an estimate or an interval.
    """
    alone = torch.tensor([head in ("all", name) for name in MODALITIES])
    inside = np.full(len(clips), np.nan)
    for first in range(0, len(clips), BATCH):
        part = clips[first : first + BATCH]
        batch = whole(part)
        output = model(batch.ticks, batch.now, alone.expand(len(part), 1, -1))
        steps = torch.stack([(p.weight[:, 0] > 0).sum(dim=-1) for p in output.attention], dim=-1)
        spread = (output.weight * output.scale)[:, 0]
        for row, clip in enumerate(part):
            present = output.present[row, 0].tolist()
            counts = zip(MODALITIES, steps[row].tolist(), strict=True)
            sizes = zip(MODALITIES, spread[row].tolist(), strict=True)
            half = card.half_width(*(dict(itertools.compress(x, present)) for x in (counts, sizes)))
            if half is not None:
                label = clip.label * (LIMIT / LIMITS[form])
                inside[first + row] = abs(float(output.sentiment[row, 0]) - label) <= half
    return inside


def _spread(scores: np.ndarray) -> dict[str, float]:
    if not len(scores):
        return dict.fromkeys(("mean", "deviation", "beyond_1"), math.nan)
    return {
        "mean": float(scores.mean()),
        "deviation": float(scores.std()),
        "beyond_1": float((np.abs(scores) > 1).mean()),
    }


def check_sizes(model: TamUlag, sizes: Mapping[str, set[int]]) -> None:
    """Compare the vectors that come with those that the model takes.

    Args:
        model: The model.
        sizes: Lengths of vectors that come, per modality.

    Raises:
        CheckpointError: If they differ.
    """
    for name, found in sizes.items():
        taken = getattr(model.config, name).dim
        if found - {taken}:
            raise CheckpointError(
                f"the checkpoint takes {name} vectors of {taken} values, the front end gives "
                f"{max(found - {taken})}: use a checkpoint of this version, or train one"
            )


def whole(clips: Sequence[Clip]) -> Batch:
    """Return clips as one padded batch, each scored at its end."""
    return collate(from_clips(clips), np.arange(len(clips)))
