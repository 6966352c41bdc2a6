"""Beginnings of validation clips: what the fused head hears while a clip is still going on.

Knows a branch, the text encoder and clips. Knows no fused head and no interval.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..data.clips import TextRow
from ..data.prefix_texts import spoken
from ..nn.branch import Branch
from ..text.text_encoder import TextEncoder
from .branch_batches import VISION_PERIOD, BranchRecipe, Rows, contexts, stacked
from .train_fusion import PrefixVectors

BEGINNINGS = 4
"""Random beginnings of each clip, beside the whole."""
BATCH = 32
PLAIN = BranchRecipe(train=[], valid=[], data="", epochs=1)
"""Clips as they are."""


def prefix_texts(
    branch: Branch,
    encoder: TextEncoder,
    corpora: Sequence[Sequence[TextRow]],
    rng: np.random.Generator,
) -> PrefixVectors:
    """Return texts and random beginnings of them, of one word up to all.

    Args:
        branch: Of text.
        encoder: Of the checkpoint.
        corpora: Texts with labels in [-3, 3], a list per corpus. Those without a token do not
            count as clips.
        rng: Draws the beginnings.
    """
    rows = [row for corpus in corpora for row in corpus]
    sources = [place for place, corpus in enumerate(corpora) for _ in corpus]
    words = [len(encoder.split(row.text)) for row in rows]
    wholes = spoken(encoder, rows, words)
    there = [place for place, clip in enumerate(wholes) if "text" in clip.values]
    found = [(number, wholes[place]) for number, place in enumerate(there)]
    for _ in range(BEGINNINGS):
        counts = [int(rng.integers(1, words[place] + 1)) for place in there]
        found += enumerate(spoken(encoder, [rows[place] for place in there], counts))
    # The first word may be a sign that has no token.
    found = [(number, clip) for number, clip in found if "text" in clip.values]
    clips = [number for number, _ in found]
    begun = stacked([clip for _, clip in found], "text")
    return _pooled(branch, begun, clips, [sources[there[number]] for number in clips])


def prefix_rows(
    branch: Branch, rows: Rows, recipe: BranchRecipe, rng: np.random.Generator
) -> PrefixVectors:
    """Return clips and random beginnings of them, of one valid step up to all.

    Args:
        branch: Of voice or face, or of text whose token states are fixed.
        rows: The clips, taken as one corpus.
        recipe: A single picture is drawn out to `still` vectors and less.
        rng: Draws the beginnings.
    """
    lengths = [recipe.still or len(values) for values in rows.values]
    clips = list(range(len(lengths))) * (BEGINNINGS + 1)
    counts = lengths + [
        int(rng.integers(1, length + 1)) for _ in range(BEGINNINGS) for length in lengths
    ]
    pieces = [_piece(rows, i, count, recipe) for i, count in zip(clips, counts, strict=True)]
    begun = replace(
        rows,
        values=[values for values, _ in pieces],
        ticks=[ticks for _, ticks in pieces],
        labels=rows.labels[clips],
    )
    return _pooled(branch, begun, clips, [0] * len(clips))


def _piece(rows: Rows, index: int, count: int, recipe: BranchRecipe) -> tuple[Tensor, Tensor]:
    values, ticks = rows.values[index], rows.ticks[index]
    if recipe.still:
        return values[:1].expand(count, -1), torch.arange(count) * VISION_PERIOD
    return values[:count], ticks[:count]


def _pooled(branch: Branch, rows: Rows, clips: list[int], sources: list[int]) -> PrefixVectors:
    heard = torch.tensor([len(values) for values in rows.values])
    vectors = contexts(branch, rows, PLAIN)
    return PrefixVectors(vectors, rows.labels, torch.tensor(clips), heard, torch.tensor(sources))
