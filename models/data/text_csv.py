"""Labelled sentences from CSVs: those of one split, as clips, and the name of each file in figures.

Knows CSVs of texts. Knows no encoder and no network.
"""

import string
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal
from unicodedata import category

import numpy as np

from ..nn.constants import LIMIT
from .clips import Array, Clip, DataError, TextRow, has_modes, read_labelled
from .label_scale import LIMITS, Form

Part = Literal["train", "valid"]

MARKS = string.punctuation + "".join(
    character for character in map(chr, range(0x10000)) if category(character)[0] == "P"
)
"""Punctuation of all scripts."""
FILLERS = ("um", "uh", "er", "well", "so", "like", "you know", "I mean")
"""Of English; each as often as the others."""
FILLED, REPEATED = 0.1, 0.03
"""Probabilities that a filler, or the word itself, comes before a word of a halting sentence."""


def read_part(files: Sequence[Path], part: Part, form: Form) -> list[TextRow]:
    """Read the rows of CSVs that belong to a split, with labels in [-3, 3].

    Of a file with the column `mode`, as the field's `label.csv` has it, only the rows of this mode
    are read: its test rows never. Of any other file all rows are.

    Args:
        files: CSVs of texts.
        part: What the rows are for.
        form: Range of the labels in the files, [-3, 3] or [-1, 1] (`sims`).

    Raises:
        DataError: If a file cannot be used or has no row of this mode.
    """
    limit = LIMITS[form]
    return [
        replace(row, label=row.label * (LIMIT / limit))
        for path in files
        for row in read_labelled(path, mode=part if has_modes(path) else None, limit=limit)
    ]


def text_clips(rows: Iterable[TextRow], states: Iterable[Array]) -> list[Clip]:
    """Return clips of written text: all words stand at tick 0, as they have no times.

    Args:
        rows: As `read_labelled` returns them.
        states: Token states (K, D) of each row.
    """
    return [
        Clip(
            row.label,
            row.group,
            {"text": values} if len(values) else {},
            {"text": np.zeros(len(values), np.int64)} if len(values) else {},
            row.unimodal,
            mode=row.mode,
        )
        for row, values in zip(rows, states, strict=True)
    ]


def names_of(files: Sequence[Path]) -> list[str]:
    """Return the name of each file in figures: its folder's, and where two share that its stem too.

    Raises:
        DataError: If two files get one name.
    """
    folders = [path.absolute().parent.name for path in files]
    count = Counter(folders)
    names = [
        folder if folder and count[folder] == 1 else f"{folder}-{path.stem}".lstrip("-")
        for folder, path in zip(folders, files, strict=True)
    ]
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise DataError(
            f"valid names two files {', '.join(twice)}, their folder and name: leave one out, or "
            "rename one"
        )
    return names


def vary_words(
    words: list[str], rng: np.random.Generator, *, bare: float, prefix: float, fillers: float = 0.0
) -> list[str]:
    """Return words without punctuation, halting, or cut to a prefix, each with its probability.

    Args:
        words: Of a sentence.
        rng: Draws all of it.
        bare: Probability that punctuation is lost.
        prefix: Probability that only a beginning is left.
        fillers: Probability that it is spoken haltingly: before some words comes a filler, or the
            word itself.
    """
    if rng.random() < bare:
        words = [word.strip(MARKS) for word in words]
    if fillers and rng.random() < fillers:
        words = [part for word in words for part in (*_halting(word, rng), word)]
    if len(words) > 3 and rng.random() < prefix:
        words = words[: int(rng.integers(3, len(words)))]
    return words


def _halting(word: str, rng: np.random.Generator) -> tuple[str, ...]:
    """Return what is said before a word, mostly nothing."""
    drawn = rng.random()
    if drawn < REPEATED:
        return (word,)
    if drawn < REPEATED + FILLED:
        return tuple(FILLERS[int(rng.integers(len(FILLERS)))].split())
    return ()
