"""Labelled clips of any modalities as tensors, each with its speaker, corpus and split.

The one container that heads are trained on, apart or jointly. Knows clips and packed splits. Knows
no batch and no model.

Shapes: N clips, M = 3 modalities (text, audio, vision), T steps, D features, L tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..nn.tam_ulag import MODALITIES
from .clips import Clip, DataError
from .mmsa_pickle import PackedSplit

Integers = npt.NDArray[np.int64]
Key = Literal["groups", "corpora", "modes"]
"""What clips can be chosen by."""
Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Clips that can be cut into batches."""

    values: dict[str, list[Tensor]]
    """Per modality that occurs and per clip (T, D) float32; T may be 0."""
    ticks: dict[str, list[Tensor]]
    """Per modality that occurs and per clip (T,) int64, ticks of 20 ms from the clip's start."""
    labels: Tensor
    """(N,) float32, in the range of the data set."""
    groups: list[str]
    """N names; clips of one name are of one speaker or video."""
    corpora: list[str]
    """N names of data sets."""
    modes: list[str]
    """N splits as the data sets have them; empty: none."""
    tokens: list[Tensor] | None = None
    """Per clip (L,) ids with the two special ones; then `values` has no text."""

    def __len__(self) -> int:
        return len(self.labels)

    def lengths(self) -> Integers:
        """Return the steps of each clip, (N, M); of tokens the words."""
        out = np.zeros((len(self), len(MODALITIES)), np.int64)
        for place, name in enumerate(MODALITIES):
            if name in self.values:
                out[:, place] = [len(steps) for steps in self.values[name]]
        if self.tokens is not None:
            out[:, 0] = [len(row) - 2 for row in self.tokens]
        return out

    def dims(self) -> dict[str, int]:
        """Return the features of each modality that occurs, tokens excepted."""
        return {name: steps[0].shape[1] for name, steps in self.values.items()}

    def select(self, rows: npt.ArrayLike) -> "Corpus":
        """Return some clips: their places (R,), or a bool for each (N,)."""
        places = np.arange(len(self))[np.asarray(rows)].tolist()

        def chosen(items: list[Item]) -> list[Item]:
            return [items[place] for place in places]

        return Corpus(
            values={name: chosen(steps) for name, steps in self.values.items()},
            ticks={name: chosen(times) for name, times in self.ticks.items()},
            labels=self.labels[places],
            groups=chosen(self.groups),
            corpora=chosen(self.corpora),
            modes=chosen(self.modes),
            tokens=None if self.tokens is None else chosen(self.tokens),
        )

    def without(self, names: Sequence[str], by: Key = "groups") -> tuple["Corpus", "Corpus"]:
        """Return the clips that are not of these groups, corpora or modes; and those that are."""
        inside = np.isin(np.array(getattr(self, by), object), list(names))
        return self.select(~inside), self.select(inside)

    def first(self, name: str, counts: Sequence[int]) -> "Corpus":
        """Return clips with the first steps alone of one modality, `counts` of each (N,)."""
        values, ticks = (
            [steps[:count] for steps, count in zip(part[name], counts, strict=True)]
            for part in (self.values, self.ticks)
        )
        return replace(self, values=self.values | {name: values}, ticks=self.ticks | {name: ticks})


def from_clips(clips: Sequence[Clip], modalities: Sequence[str] = MODALITIES) -> Corpus:
    """Return clips, of whose modalities each may be missing, as a corpus.

    Args:
        clips: Any number.
        modalities: Those that are taken; one that no clip has is left out.

    Raises:
        DataError: If vectors of one modality differ in length.
    """
    values: dict[str, list[Tensor]] = {}
    ticks: dict[str, list[Tensor]] = {}
    for name in modalities:
        dims = {clip.values[name].shape[1] for clip in clips if name in clip.values}
        if len(dims) > 1:
            raise DataError(
                f"{name}: vectors of {sorted(dims)} values in one corpus: extract all of it again"
            )
        if not dims:
            continue
        nothing = (np.zeros((0, dims.pop()), np.float32), np.zeros(0, np.int64))
        pairs = [
            (clip.values[name], clip.ticks[name]) if name in clip.values else nothing
            for clip in clips
        ]
        values[name] = [torch.from_numpy(steps) for steps, _ in pairs]
        ticks[name] = [torch.from_numpy(times) for _, times in pairs]
    return Corpus(
        values=values,
        ticks=ticks,
        labels=torch.tensor([clip.label for clip in clips], dtype=torch.float32),
        groups=[clip.group for clip in clips],
        corpora=[clip.corpus for clip in clips],
        modes=[clip.mode for clip in clips],
    )


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
    return replace(corpus, values=values, ticks=ticks, tokens=rows)
