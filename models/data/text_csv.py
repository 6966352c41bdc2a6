"""Labelled sentences from CSVs: what is trained on, what is only validated, and under which names.

Knows CSVs of texts. Knows no encoder and no network.
"""

import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal
from unicodedata import category

import numpy as np

from ..nn.tam_ulag import LIMIT
from .clips import DataError, TextRow, has_modes, read_labelled
from .label_scale import LIMITS, Form

Part = Literal["train", "valid"]

MARKS = string.punctuation + "".join(
    character for character in map(chr, range(0x10000)) if category(character)[0] == "P"
)
"""Punctuation of all scripts."""


def read_part(files: Sequence[Path], part: Part, form: Form) -> list[TextRow]:
    """Read the rows of CSVs that belong to a part, with labels in [-3, 3].

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


def refuse_shared(train: Sequence[Path], valid: Sequence[Path]) -> None:
    """Refuse a file that is trained on and validated, unless its column `mode` splits it.

    Raises:
        DataError: If there is one.
    """
    seen = {path.resolve() for path in train}
    shared = [path for path in valid if path.resolve() in seen and not has_modes(path)]
    if shared:
        raise DataError(
            f"{', '.join(map(str, shared))} is given to train on and as valid: give two files, or "
            "add a column mode with train and valid in its rows"
        )


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


def varied(words: list[str], bare: float, prefix: float, rng: np.random.Generator) -> list[str]:
    """Return the words as training sees them: without punctuation, or cut, with these shares."""
    if rng.random() < bare:
        words = [word.strip(MARKS) for word in words]
    if len(words) > 3 and rng.random() < prefix:
        words = words[: int(rng.integers(3, len(words)))]
    return words
