"""Which rows make a batch, and which states they begin with: the draws of a training.

Knows lengths and recurrent states. Knows no sentence, no clip and no loss.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ..nn.encoder import EncoderState


def batches(lengths: Sequence[int], size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield batches of rows of similar length, in random order, so that little is padded.

    Sorting inside windows of sixteen batches keeps the draw random and the padding small.
    """
    order = rng.permutation(len(lengths))
    for window in np.array_split(order, max(1, len(order) // (size * 16))):
        by_length = window[np.argsort(np.asarray(lengths)[window], kind="stable")]
        parts = np.array_split(by_length, max(1, len(window) // size))
        for part in rng.permutation(len(parts)):
            yield parts[part]


def carry_states(
    fresh: EncoderState, carried: EncoderState, share: float, rng: np.random.Generator
) -> EncoderState:
    """Give a share of the rows the state of a row from the batch before.

    The running level stays fresh: it belongs to a voice, and the rows are of different people.
    """
    count = len(fresh.h)
    source = torch.from_numpy(rng.integers(0, len(carried.h), count))
    keep = torch.from_numpy(rng.random(count) < share).view(-1, 1, 1)
    return EncoderState(
        torch.where(keep, carried.h[source], fresh.h),
        torch.where(keep, carried.c[source], fresh.c),
        fresh.level,
    )
