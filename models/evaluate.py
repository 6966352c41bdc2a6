"""Measure a checkpoint on labelled texts.

Knows CSV files of texts, the text encoder and the metrics. Knows no stream.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from .checkpoint import CheckpointError, load
from .data import DataError, read_texts
from .encoder import Ticks
from .metrics import mosi_metrics
from .text import TextEncoder

BATCH = 128


def evaluate_texts(
    path: Path, checkpoint: str, progress: Callable[[int], None]
) -> dict[str, float]:
    """Compare the text head's estimates with the labels of a CSV.

    Each row is scored alone from the initial state, all of its words inside one window.

    Args:
        path: CSV with the columns `text,label`, labels in [-3, 3].
        checkpoint: Name or path.
        progress: Called with the number of rows that are done.

    Returns:
        n, MAE, Corr, Acc2_has0, Acc2_non0, F1_has0, F1_non0, Acc7.

    Raises:
        DataError: If the CSV cannot be used or is empty.
        CheckpointError: If the checkpoint cannot be used or its text head is untrained.
    """
    rows = read_texts(path)
    if not rows:
        raise DataError(f"{path} has no rows: expected a header text,label and rows below it")
    model, card = load(checkpoint)
    if not card.trained["text"]:
        raise CheckpointError(f"checkpoint {checkpoint}: its text head is untrained")
    encoder = TextEncoder()
    estimates = []
    for first in range(0, len(rows), BATCH):
        states = encoder.encode_batch([text for text, _, _ in rows[first : first + BATCH]])
        estimates.append(score_texts(model, states))
        progress(min(len(rows), first + BATCH))
    return mosi_metrics(np.concatenate(estimates), np.array([label for _, label, _ in rows]))


@torch.inference_mode()
def score_texts(model: "torch.nn.Module", states: list[np.ndarray]) -> np.ndarray:
    """Return the text head's estimates (N,) of token states, each (K, 384)."""
    tensors = [torch.from_numpy(s) for s in states]
    values = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True)
    lengths = torch.tensor([len(s) for s in states])
    mask = torch.arange(values.shape[1]) < lengths.unsqueeze(-1)
    time = torch.zeros(mask.shape, dtype=torch.int64)
    now = torch.ones(len(states), 1, dtype=torch.int64)
    output = model({"text": Ticks(values, mask, time, time)}, now)
    scores: np.ndarray = output.heads[:, 0, 0].numpy()
    return scores
