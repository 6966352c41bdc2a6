"""Clips of a corpus as batches: drawn, sorted by length, trimmed, cut to prefixes, padded.

Knows a corpus and the order in which it is drawn. Knows no model and no loss.

Shapes: B clips of a batch, N clips of a corpus, M = 3 modalities (text, audio, vision), T steps, L
tokens with the two special ones.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..nn.encoder import Ticks
from ..nn.tam_ulag import MODALITIES
from .corpus import Corpus, Integers

SORTED = 16
"""Batches that are sorted by length together where each is a step of its own."""


class Tokens(NamedTuple):
    """Input of the text encoder."""

    ids: Tensor
    """(B, L) int64; each row [CLS] words [SEP]."""
    mask: Tensor
    """(B, L) bool, True = a token."""


class Batch(NamedTuple):
    """Clips, padded to the longest one."""

    rows: Tensor
    """(B,) int64, places in the corpus."""
    ticks: dict[str, Ticks]
    """Modalities that the corpus has; those of tokens have no values yet."""
    now: Tensor
    """(B, 1) int64, the tick after each clip's last."""
    labels: Tensor
    """(B,) float32."""
    tokens: Tokens | None


def windows(
    lengths: Sequence[int] | Integers,
    batch: int,
    count: int,
    rng: np.random.Generator,
    *,
    sort: bool = True,
    exceed: bool = False,
) -> Iterator[list[Integers]]:
    """Yield windows of at most `count` batches, each clip once; none is dropped.

    A window of `batch * count` clips is drawn at random and sorted by length, so that its batches
    need little padding while the draw stays random. What does not fill a window changes the size of
    all windows a little: a small last batch would give its clips the weight of a full one.

    Args:
        lengths: (N,) cost of each clip.
        batch: Clips of a batch: the most, or with `exceed` the least.
        count: Batches of a window, likewise.
        rng: Draws the order.
        sort: False leaves each window in the order drawn.
        exceed: Spread what is left over other batches and windows instead of adding one.
    """

    def parts(total: int, size: int) -> int:
        return max(1, total // size) if exceed else -(-total // size)

    costs, order = np.asarray(lengths), rng.permutation(len(lengths))
    for window in np.array_split(order, parts(len(order), batch * count)):
        rows = window[np.argsort(costs[window], kind="stable")] if sort else window
        yield np.array_split(rows, parts(len(rows), batch))


def shuffled_batches(
    lengths: Sequence[int], batch: int, rng: np.random.Generator
) -> Iterator[Integers]:
    """Yield batches of clips of similar length, of `batch` clips or a few more, in random order."""
    for parts in windows(lengths, batch, SORTED, rng, exceed=True):
        for part in rng.permutation(len(parts)):
            yield parts[part]


def cost(corpus: Corpus) -> Integers:
    """Return by what clips are sorted, (N,): their tokens, or else the sum of all steps."""
    lengths = corpus.lengths()
    return lengths[:, 0] if corpus.tokens is not None else lengths.sum(axis=1)


def shortened(
    lengths_BM: Integers, rng: np.random.Generator, *, drop: float = 0.0, prefix: float = 0.0
) -> Integers:
    """Return how many of its first steps each clip has left in each modality, (B, M).

    Args:
        lengths_BM: Steps there are.
        rng: Draws; the same number of draws whatever it decides.
        drop: Probability that a clip loses one or more of its modalities, never all of them.
        prefix: Probability that a clip ends at a random moment: the same share of each modality's
            steps is left, rounded up.
    """
    count = len(lengths_BM)
    there = lengths_BM > 0
    draws = rng.random((4, count))
    share = np.where(draws[0] < prefix, 1 - draws[1], 1.0)
    steps = np.ceil(lengths_BM * share[:, None]).astype(np.int64)
    # Of n modalities the `left` with the smallest draws stay, 1 <= left < n.
    rank = np.where(there, rng.random(lengths_BM.shape), 2.0).argsort(axis=1).argsort(axis=1)
    most = np.maximum(there.sum(axis=1) - 1, 1)
    left = np.where(draws[2] < drop, 1 + np.floor(draws[3] * most), len(MODALITIES))
    steps[rank >= left[:, None]] = 0
    return steps


def collate(
    corpus: Corpus,
    rows: Integers,
    steps_BM: Integers | None = None,
    *,
    special: bool = True,
    full: Mapping[str, int] | None = None,
) -> Batch:
    """Return clips as one batch, padded to its longest clip.

    Args:
        corpus: Holds the clips.
        rows: (B,) their places.
        steps_BM: Steps of each that are used, as `shortened` gives them; None: all.
        special: [CLS] and [SEP] are states of text, too.
        full: Steps to pad each modality to instead, the two special tokens included.
    """
    steps_BM = corpus.lengths()[rows] if steps_BM is None else steps_BM
    full = full or {}
    ticks = {}
    for place, name in enumerate(MODALITIES):
        if name in corpus.values:
            values, times = corpus.values[name], corpus.ticks[name]
            counts = steps_BM[:, place]
            cut = [(values[r][:n], times[r][:n]) for r, n in zip(rows, counts, strict=True)]
            ticks[name] = padded(cut, full.get(name, 0))
    tokens = None
    if corpus.tokens is not None:
        words = steps_BM[:, 0]
        tokens = _tokens(corpus.tokens, rows, words, full.get("text", 0))
        ticks["text"] = _places(tokens, torch.from_numpy(words), special=special)
    index = torch.from_numpy(rows)
    return Batch(index, ticks, ends(ticks.values(), len(rows)), corpus.labels[index], tokens)


def padded(clips: Sequence[tuple[Tensor, Tensor]], steps: int = 0) -> Ticks:
    """Return values (T, D) and ticks (T,) of some clips as one batch of at least `steps` steps."""
    values = _extended(pad_sequence([values for values, _ in clips], batch_first=True), steps)
    time = _extended(pad_sequence([time for _, time in clips], batch_first=True), steps)
    lengths = torch.tensor([len(time) for _, time in clips])
    return Ticks(values, torch.arange(time.shape[1]) < lengths.unsqueeze(-1), time, time)


def ends(ticks: Iterable[Ticks], count: int) -> Tensor:
    """Return the tick (B, 1) after the last of each of `count` clips; 1 where nothing is valid."""
    last = [torch.where(t.mask, t.time, 0).amax(dim=1) for t in ticks if t.time.numel()]
    none = torch.zeros(count, dtype=torch.int64)
    return torch.stack([*last, none]).amax(dim=0).unsqueeze(-1) + 1


def _extended(rows: Tensor, steps: int) -> Tensor:
    if rows.shape[1] >= steps:
        return rows
    return torch.cat([rows, rows.new_zeros(len(rows), steps - rows.shape[1], *rows.shape[2:])], 1)


def _tokens(corpus: list[Tensor], rows: Integers, words: Integers, steps: int) -> Tokens:
    # A sentence that is cut ends with [SEP] as well: so is live text encoded while it grows.
    cut = [
        torch.cat([corpus[r][: n + 1], corpus[r][-1:]]) for r, n in zip(rows, words, strict=True)
    ]
    ids = _extended(pad_sequence(cut, batch_first=True), steps)
    lengths = torch.from_numpy(words + 2).unsqueeze(-1)
    return Tokens(ids, torch.arange(ids.shape[1]) < lengths)


def _places(tokens: Tokens, words: Tensor, *, special: bool) -> Ticks:
    """Return ticks of tokens without values: a token is a tick; a clip without words has none."""
    place = torch.arange(tokens.ids.shape[1]).expand(tokens.ids.shape)
    mask = tokens.mask & (words > 0).unsqueeze(-1)
    if not special:
        mask = mask & (place > 0) & (place <= words.unsqueeze(-1))
    return Ticks(torch.zeros(*place.shape, 0), mask, place, place)
