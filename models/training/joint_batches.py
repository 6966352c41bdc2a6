"""Labelled clips as batches: trimmed, sorted by length, with modalities and endings left out.

Knows clips and the order in which they are drawn. Knows no model and no loss.

Shapes: B clips of a batch, N clips of a corpus, M = 3 modalities (text, audio, vision), T steps, L
tokens with the two special ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..data.clips import Clip, DataError
from ..data.mmsa_pickle import PackedSplit
from ..nn.encoder import Ticks
from ..nn.tam_ulag import MODALITIES

Integers = npt.NDArray[np.int64]


class Tokens(NamedTuple):
    """What the text encoder reads."""

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


@dataclass(frozen=True)
class Corpus:
    """Clips of one split, ready to be cut into batches."""

    values: dict[str, list[Tensor]]
    """Per modality that occurs and per clip (T, D); T may be 0."""
    ticks: dict[str, list[Tensor]]
    """Per modality that occurs and per clip (T,) int64."""
    labels: Tensor
    """(N,) float32, in the range of the data set."""
    tokens: list[Tensor] | None = None
    """Per clip (L,) ids; then `values` has no text."""

    def lengths(self) -> Integers:
        """Return the steps of each clip, (N, M); of tokens the words."""
        out = np.zeros((len(self.labels), len(MODALITIES)), np.int64)
        for place, name in enumerate(MODALITIES):
            if name in self.values:
                out[:, place] = [len(steps) for steps in self.values[name]]
        if self.tokens is not None:
            out[:, 0] = [len(row) - 2 for row in self.tokens]
        return out

    def dims(self) -> dict[str, int]:
        """Return the features of each modality that occurs, tokens excepted."""
        return {name: steps[0].shape[1] for name, steps in self.values.items()}


def from_clips(clips: Sequence[Clip]) -> Corpus:
    """Return clips, of whose modalities each may be missing, as a corpus.

    Raises:
        DataError: If there is no clip, or vectors of one modality differ in length.
    """
    values: dict[str, list[Tensor]] = {}
    ticks: dict[str, list[Tensor]] = {}
    for name in MODALITIES:
        dims = {clip.values[name].shape[1] for clip in clips if name in clip.values}
        if len(dims) > 1:
            raise DataError(f"{name}: vectors of {sorted(dims)} values in one corpus: extract anew")
        if not dims:
            continue
        nothing = (np.zeros((0, dims.pop()), np.float32), np.zeros(0, np.int64))
        pairs = [
            (clip.values[name], clip.ticks[name]) if name in clip.values else nothing
            for clip in clips
        ]
        values[name] = [torch.from_numpy(steps) for steps, _ in pairs]
        ticks[name] = [torch.from_numpy(times) for _, times in pairs]
    if not values:
        raise DataError(f"{len(clips)} clips hold nothing of {', '.join(MODALITIES)}")
    return Corpus(values, ticks, torch.tensor([clip.label for clip in clips]))


def from_packed(split: PackedSplit, *, tokens: bool, vocabulary: int = 0) -> Corpus:
    """Return a split of a packed file as a corpus.

    Args:
        split: Of a packed file.
        tokens: Take the ids of `text_bert` in place of the states `text`.
        vocabulary: Number of word pieces that the text encoder knows.

    Raises:
        DataError: If the ids are missing or not of this encoder.
    """
    corpus = from_clips(split.clips())
    if not tokens:
        return corpus
    if split.tokens is None:
        raise DataError("the packed file has no text_bert: set text.finetune = false")
    if int(split.tokens[:, 0].max(initial=0)) >= vocabulary:
        raise DataError(
            f"text_bert holds the id {split.tokens[:, 0].max()}, the text encoder knows "
            f"{vocabulary} word pieces: set text.finetune = false"
        )
    counts = (split.tokens[:, 1] != 0).sum(axis=1)
    if int(counts.min(initial=2)) < 2:
        raise DataError("text_bert has a row without [CLS] and [SEP]: set text.finetune = false")
    rows = [
        torch.from_numpy(row[0, :n].copy()) for row, n in zip(split.tokens, counts, strict=True)
    ]
    # Copied, so that the states of text, most of the file, can be freed.
    values = {n: [x.clone() for x in steps] for n, steps in corpus.values.items() if n != "text"}
    ticks = {name: times for name, times in corpus.ticks.items() if name != "text"}
    return Corpus(values, ticks, corpus.labels, rows)


def windows(
    lengths: Integers, batch: int, accumulate: int, rng: np.random.Generator, *, sort: bool = True
) -> Iterator[list[Integers]]:
    """Yield the batches of each optimiser step, each clip once; none is dropped.

    A window of `batch * accumulate` clips is drawn at random and sorted by length, so that its
    batches need little padding while the step's gradient is that of the same clips in any order.
    What does not fill a window makes all windows a little smaller: a small last batch would give
    its clips the weight of a full one.

    Args:
        lengths: (N,) what a clip costs.
        batch: Most clips of a batch.
        accumulate: Most batches of a step.
        rng: Draws the order.
        sort: False leaves each window in the order drawn.
    """
    order = rng.permutation(len(lengths))
    for window in np.array_split(order, -(-len(order) // (batch * accumulate))):
        if sort:
            window = window[np.argsort(lengths[window], kind="stable")]  # noqa: PLW2901
        yield np.array_split(window, -(-len(window) // batch))


def cost(corpus: Corpus) -> Integers:
    """Return by what clips are sorted, (N,): their tokens, or else the sum of all steps."""
    lengths = corpus.lengths()
    return lengths[:, 0] if corpus.tokens is not None else lengths.sum(axis=1)


def varied(
    lengths_BM: Integers, rng: np.random.Generator, *, drop: float = 0.0, prefix: float = 0.0
) -> Integers:
    """Return the steps that are kept of each clip: the first ones of each modality, or none.

    Args:
        lengths_BM: Steps there are.
        rng: Draws; the same number of draws whatever it decides.
        drop: Probability that a clip loses one or more of its modalities, never all of them.
        prefix: Probability that a clip ends at a random moment: the same share of each modality's
            steps is kept, rounded up.
    """
    count = len(lengths_BM)
    there = lengths_BM > 0
    draws = rng.random((4, count))
    share = np.where(draws[0] < prefix, 1 - draws[1], 1.0)
    kept = np.ceil(lengths_BM * share[:, None]).astype(np.int64)
    # Of n modalities the `left` with the smallest draws stay, 1 <= left < n.
    rank = np.where(there, rng.random(lengths_BM.shape), 2.0).argsort(axis=1).argsort(axis=1)
    most = np.maximum(there.sum(axis=1) - 1, 1)
    left = np.where(draws[2] < drop, 1 + np.floor(draws[3] * most), len(MODALITIES))
    kept[rank >= left[:, None]] = 0
    return kept


def collate(
    corpus: Corpus,
    rows: Integers,
    kept_BM: Integers,
    *,
    special: bool = True,
    full: Mapping[str, int] | None = None,
) -> Batch:
    """Return clips as one batch, padded to its longest clip.

    Args:
        corpus: Holds the clips.
        rows: (B,) their places.
        kept_BM: Steps to keep of each, as `varied` gives them.
        special: [CLS] and [SEP] are states of text, too.
        full: Steps to pad each modality to instead, the two special tokens included.
    """
    full = full or {}
    ticks = {}
    for place, name in enumerate(MODALITIES):
        if name in corpus.values:
            kept = kept_BM[:, place]
            values = _padded([corpus.values[name][r][:n] for r, n in zip(rows, kept, strict=True)])
            time = _padded([corpus.ticks[name][r][:n] for r, n in zip(rows, kept, strict=True)])
            values, time = (_extended(x, full.get(name, 0)) for x in (values, time))
            mask = torch.arange(time.shape[1]) < torch.from_numpy(kept).unsqueeze(-1)
            ticks[name] = Ticks(values, mask, time, time)
    tokens = None
    if corpus.tokens is not None:
        words = kept_BM[:, 0]
        tokens = _tokens(corpus.tokens, rows, words, full.get("text", 0))
        ticks["text"] = _places(tokens, torch.from_numpy(words), special=special)
    ends = [torch.where(t.mask, t.time, -1).amax(dim=1) for t in ticks.values() if t.time.numel()]
    now = torch.stack([*ends, torch.zeros(len(rows), dtype=torch.int64)]).amax(dim=0) + 1
    index = torch.from_numpy(rows)
    return Batch(index, ticks, now.unsqueeze(-1), corpus.labels[index], tokens)


def _padded(rows: list[Tensor]) -> Tensor:
    return pad_sequence(rows, batch_first=True)


def _extended(rows: Tensor, steps: int) -> Tensor:
    if rows.shape[1] >= steps:
        return rows
    return torch.cat([rows, rows.new_zeros(len(rows), steps - rows.shape[1], *rows.shape[2:])], 1)


def _tokens(corpus: list[Tensor], rows: Integers, words: Integers, steps: int) -> Tokens:
    # A sentence that is cut ends with [SEP] as well: so is live text encoded while it grows.
    cut = [
        torch.cat([corpus[r][: n + 1], corpus[r][-1:]]) for r, n in zip(rows, words, strict=True)
    ]
    ids = _extended(_padded(cut), steps)
    lengths = torch.from_numpy(words + 2).unsqueeze(-1)
    return Tokens(ids, torch.arange(ids.shape[1]) < lengths)


def _places(tokens: Tokens, words: Tensor, *, special: bool) -> Ticks:
    """Return ticks of tokens without values: a token is a tick; a clip without words has none."""
    place = torch.arange(tokens.ids.shape[1]).expand(tokens.ids.shape)
    mask = tokens.mask & (words > 0).unsqueeze(-1)
    if not special:
        mask = mask & (place > 0) & (place <= words.unsqueeze(-1))
    return Ticks(torch.zeros(*place.shape, 0), mask, place, place)
