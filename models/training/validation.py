"""Measure a model in training on a corpus: estimates, figures, intervals, attention.

Knows a task and whole clips. Trains nothing.
"""

from collections.abc import Callable, Collection
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.batches import collate, cost
from ..data.corpus import Corpus
from ..data.label_scale import Form
from ..evaluation.conformal import half_width
from ..evaluation.metrics import METRICS
from ..nn.tam_ulag import MODALITIES, Output
from .progress import Progress, Record, silent
from .train_fusion import SUBSETS, fused
from .train_joint import Task

BATCH = 64
"""Clips that are scored together."""
SHOWN = 4
"""Clips whose attention is stored."""


class Estimates(NamedTuple):
    """The estimates of a corpus, in the range of its labels."""

    sentiment: Tensor
    """(N,)."""
    heads: Tensor
    """(N, M)."""
    present: Tensor
    """(N, M) bool."""
    contexts: dict[str, Tensor]
    """Per modality (N, H)."""


@torch.inference_mode()
def estimate(task: Task, corpus: Corpus, progress: Progress = silent) -> Estimates:
    """Score whole clips, each from the initial state."""
    task.net.eval()
    order = np.argsort(cost(corpus), kind="stable")
    parts, done = [], 0
    for rows in np.array_split(order, -(-len(order) // BATCH)):
        batch = collate(corpus, rows, special=task.recipe.text.special)
        parts.append(task.net(batch)[0])
        done += len(rows)
        progress("validate", done, len(order))
    back = torch.from_numpy(np.argsort(order))

    def joined(of: Callable[[Output], Tensor]) -> Tensor:
        return torch.cat([of(part)[:, -1] for part in parts])[back]

    return Estimates(
        joined(lambda out: out.sentiment) * task.scale,
        joined(lambda out: out.heads) * task.scale,
        joined(lambda out: out.present),
        {
            name: joined(lambda out, place=place: out.attention[place].context)  # type: ignore[misc]
            for place, name in enumerate(MODALITIES)
        },
    )


def figures(
    found: Estimates, corpus: Corpus, form: Form, *, heads: Collection[str] = MODALITIES
) -> Record:
    """Return the figures of the fused estimate, and the MAE of each modality's own.

    Args:
        found: The estimates of the corpus.
        corpus: With the labels.
        form: Of the figures.
        heads: Modalities whose own head is trained; of others there is no figure.
    """
    out = METRICS[form](found.sentiment.numpy(), corpus.labels.numpy())
    for place, name in enumerate(MODALITIES):
        there = found.present[:, place]
        if name in heads and there.any():
            error = (found.heads[:, place] - corpus.labels)[there].abs()
            out[f"{name}.MAE"] = float(error.mean())
    return out


@torch.inference_mode()
def intervals(task: Task, found: Estimates, corpus: Corpus) -> dict[str, float]:
    """Return per subset of modalities the split conformal half width at 90 %, in [-3, 3].

    q = the ceil(0.9 (n + 1)) smallest |estimate - label|  (Vovk et al. 2005; Lei et al. 2018), over
    the n clips that have all of the subset's modalities. With fewer than 9 no such q exists, and
    there is no interval.

    Args:
        task: Its model is in evaluation mode.
        found: Its estimates of the corpus.
        corpus: Rows that it was not trained on.
    """
    half = {}
    for subset in SUBSETS:
        names = [name for name, chosen in zip(MODALITIES, subset, strict=True) if chosen]
        rows = found.present[:, torch.from_numpy(subset)].all(dim=1)
        count = int(rows.sum())
        present = torch.from_numpy(subset).expand(count, -1)
        vectors = {name: found.contexts[name][rows] for name in MODALITIES}
        residual = fused(task.net.model, vectors, present) - corpus.labels[rows] / task.scale
        width = half_width(residual.abs(), count)
        if width is not None:
            half["+".join(names)] = width
    return half


@torch.inference_mode()
def attention(task: Task, corpus: Corpus) -> list[dict[str, object]]:
    """Return attention over time of a few clips, from the most negative to the most positive.

    Each has `label`, `estimate` and, per modality that is present, `time` in ticks and `weight`.
    """
    task.net.eval()
    order = np.argsort(corpus.labels.numpy(), kind="stable")
    rows = order[np.linspace(0, len(order) - 1, min(SHOWN, len(order))).astype(np.int64)]
    batch = collate(corpus, rows, special=task.recipe.text.special)
    out, _ = task.net(batch)
    clips: list[dict[str, object]] = []
    for row, label in enumerate(batch.labels.tolist()):
        score = float(out.sentiment[row, 0]) * task.scale
        clip: dict[str, object] = {"label": label, "estimate": score}
        for name, pooled in zip(MODALITIES, out.attention, strict=True):
            if pooled.present[row, 0]:
                # Valid steps come first, so their number is enough.
                count = int(batch.ticks[name].mask[row].sum())
                clip[name] = {
                    "time": pooled.time[row, :count].tolist(),
                    "weight": pooled.weight[row, 0, :count].tolist(),
                }
        clips.append(clip)
    return clips
