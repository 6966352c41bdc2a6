"""Mix people's labels of sentences with the scores of a larger checkpoint (distillation).

A small network that is trained on the mean of the two learns what the large one has understood, and
is not misled by the one or the other annotator (Hinton et al. 2015, Distilling the knowledge in a
neural network; here of a regression). Knows rows and checkpoints. Knows no training.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ..data.clips import DataError, TextRow
from ..evaluation.evaluate import estimates, open_evaluation
from ..nn.constants import LIMIT

CHUNK = 256
"""Sentences whose token states are held at a time."""


def taught(
    rows: Sequence[TextRow], teacher: str, share: float, progress: Callable[[int], None]
) -> Iterator[tuple[str, float]]:
    """Yield each sentence with the mean of its label and of what a checkpoint makes of it.

    Corpora label on scales of their own, so a line is fitted first that turns the checkpoint's
    scores into the labels of these rows.

    Args:
        rows: At least three sentences, labels in [-3, 3]; not those that judge the result.
        teacher: Name or path of the checkpoint, of which the text head is asked.
        share: Of the checkpoint's score in the mean, in [0, 1].
        progress: Called with the number of sentences that are done.

    Raises:
        DataError: If there are fewer rows, or all get one score.
        CheckpointError: If the checkpoint cannot be used or its text head is untrained.
    """
    if len(rows) < 3:
        raise DataError(
            f"{len(rows)} sentences are too few to fit a teacher to: give three or more"
        )
    ready = open_evaluation(teacher)
    scores = np.zeros(len(rows))
    for first in range(0, len(rows), CHUNK):
        part = rows[first : first + CHUNK]
        found, present = estimates(ready.model, ready.texts(part), "text")
        scores[first : first + len(part)] = np.where(present, found, 0.0)
        progress(first + len(part))
    labels = np.array([row.label for row in rows])
    if scores.std() < 1e-6:
        raise DataError(f"checkpoint {teacher} gives all {len(rows)} sentences one score")
    slope, offset = np.polyfit(scores, labels, 1)
    fitted = np.clip(slope * scores + offset, -LIMIT, LIMIT)
    mixed = (1 - share) * labels + share * fitted
    yield from zip((row.text for row in rows), mixed.tolist(), strict=True)
