"""Prefixes of validation clips: the input of the fused head while a clip is still going on.

Knows a branch, the text encoder and clips. Knows no fused head and no interval.
"""

from collections.abc import Sequence

import numpy as np
import torch

from ..data.clips import TextRow
from ..data.corpus import Corpus, from_clips
from ..data.prefix_texts import encode_prefixes
from ..nn.branch import Branch
from ..text.text_encoder import TextEncoder
from .branch_batches import pooled, repeat_pictures
from .train_fusion import PrefixVectors

PREFIXES = 4
"""Random prefixes of each clip, beside the whole."""


def text_prefix_vectors(
    branch: Branch,
    encoder: TextEncoder,
    corpora: Sequence[Sequence[TextRow]],
    rng: np.random.Generator,
) -> PrefixVectors:
    """Return the vectors of texts and of random prefixes of them, of one word up to all.

    Args:
        branch: Of text.
        encoder: Of the checkpoint.
        corpora: Texts with labels in [-3, 3], a list per corpus. Those without a token do not
            count as clips.
        rng: Draws the prefixes.
    """
    rows = [row for corpus in corpora for row in corpus]
    sources = [place for place, corpus in enumerate(corpora) for _ in corpus]
    words = [len(encoder.split(row.text)) for row in rows]
    wholes = encode_prefixes(encoder, rows, words)
    used = [place for place, clip in enumerate(wholes) if "text" in clip.values]
    found = [(number, wholes[place]) for number, place in enumerate(used)]
    for _ in range(PREFIXES):
        counts = [int(rng.integers(1, words[place] + 1)) for place in used]
        found += enumerate(encode_prefixes(encoder, [rows[place] for place in used], counts))
    # The first word may be a sign that has no token.
    found = [(number, clip) for number, clip in found if "text" in clip.values]
    clips = [number for number, _ in found]
    prefixes = from_clips([clip for _, clip in found])
    return _pooled(branch, "text", prefixes, clips, [sources[used[number]] for number in clips])


def prefix_vectors(
    branch: Branch, name: str, corpus: Corpus, still: int, rng: np.random.Generator
) -> PrefixVectors:
    """Return the vectors of clips and of random prefixes of them, of one valid step up to all.

    Args:
        branch: Of voice or face, or of text whose token states are fixed.
        name: Its modality.
        corpus: Clips that all have it, taken as one corpus.
        still: Vectors into which a single picture is repeated; 0: clips as they are.
        rng: Draws the prefixes.
    """
    corpus = repeat_pictures(corpus, name, still)
    lengths = [len(values) for values in corpus.values[name]]
    clips = list(range(len(lengths))) * (PREFIXES + 1)
    counts = lengths + [
        int(rng.integers(1, length + 1)) for _ in range(PREFIXES) for length in lengths
    ]
    return _pooled(branch, name, corpus.select(clips).first(name, counts), clips, [0] * len(clips))


def _pooled(
    branch: Branch, name: str, prefixes: Corpus, clips: list[int], sources: list[int]
) -> PrefixVectors:
    context, steps = pooled(branch, prefixes, name)
    return PrefixVectors(
        context, prefixes.labels, torch.tensor(clips), steps, torch.tensor(sources)
    )
