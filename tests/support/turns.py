"""States of words for turns that are played through a tiny model."""

from collections.abc import Sequence

import numpy as np


def by_length(words: Sequence[str]) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return a state (5,) per word that depends on the word's length alone."""
    rows = [np.random.default_rng(len(word)).standard_normal(5) for word in words]
    return np.array(rows, np.float32).reshape(-1, 5), tuple(range(len(words)))
