"""Clips with labels as feature files, and CSVs of texts and of media files.

Knows arrays, safetensors files and CSV files. Knows no front end: `tamulag extract` fills these
files with the features that run live. Nothing in a feature file can run code.
"""

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..nn.constants import LIMIT, MODALITIES
from ..nn.errors import TamulagError

if TYPE_CHECKING:
    from _csv import Reader

FORMAT = "tamulag-features-1"
HUMAN = {"text": "label_T", "audio": "label_A", "vision": "label_V"}
"""Columns of the human labels of each modality alone."""
VARIED = "varied"
"""Mode of a clip that is another one with its sound changed: it is trained on, never measured."""
Array = npt.NDArray[np.float32]


class DataError(TamulagError):
    """A data file cannot be used; the text names the file, the row and the remedy."""


@dataclass(frozen=True)
class Clip:
    """One labelled clip: its valid feature vectors, oldest first, and when they happened."""

    label: float
    """Sentiment in [-3, 3], or in the range of the data set that it comes from."""
    group: str
    """Speaker, video or another unit that must not be split between training and validation."""
    values: dict[str, Array]
    """Per modality (T, D) float32; a modality without anything valid is left out."""
    ticks: dict[str, npt.NDArray[np.int64]]
    """Per modality (T,), ticks of 20 ms from the clip's start."""
    unimodal: dict[str, float] = field(default_factory=dict)
    """Per modality its own human label; a modality without one is left out."""
    corpus: str = ""
    """Data set that the clip is of; of a feature file that names none, the file's stem."""
    mode: str = ""
    """Split that the data set puts it in, e.g. `train`; empty: it has no splits."""


@dataclass(frozen=True)
class TextRow:
    """One row of a CSV of texts."""

    text: str
    label: float
    group: str
    """The video, else the row's last line."""
    unimodal: dict[str, float] = field(default_factory=dict)
    """Human labels of each modality alone, where the CSV has them (CH-SIMS)."""
    mode: str = ""
    """Value of the column `mode`, where the CSV has it."""
    place: float = 0.0
    """Number in the column `clip_id`, where it is one: the row's place in its video."""


@dataclass(frozen=True)
class MediaRow:
    """One row of a CSV of media files."""

    file: Path
    label: float
    text: str = ""
    """Transcript; empty: unknown."""
    group: str = ""
    corpus: str = ""
    mode: str = ""
    """As in `Clip`, and `corpus` too."""


def write_clips(path: Path, clips: Sequence[Clip], *, about: str) -> None:
    """Write a feature file, atomically; values are stored as float16 to halve it.

    Args:
        path: File to write, `.safetensors`.
        clips: Any number of clips, each with any subset of modalities.
        about: Where the clips come from, for people.
    """
    tensors: dict[str, npt.NDArray[np.generic]] = {
        "label": np.array([clip.label for clip in clips], np.float32)
    }
    for name in MODALITIES:
        present = [clip.values[name] for clip in clips if name in clip.values]
        if present:
            lengths = [len(clip.values[name]) if name in clip.values else 0 for clip in clips]
            tensors[f"{name}.values"] = np.concatenate(present).astype(np.float16)
            tensors[f"{name}.ticks"] = np.concatenate(
                [clip.ticks[name] for clip in clips if name in clip.values]
            )
            tensors[f"{name}.lengths"] = np.array(lengths, np.int64)
    for name in MODALITIES:
        if any(name in clip.unimodal for clip in clips):
            human = [clip.unimodal.get(name, math.nan) for clip in clips]
            tensors[f"{name}.label"] = np.array(human, np.float32)
    meta = {"format": FORMAT, "about": about, "groups": json.dumps([clip.group for clip in clips])}
    for key, names in (("corpora", [c.corpus for c in clips]), ("modes", [c.mode for c in clips])):
        if any(names):
            meta[key] = json.dumps(names)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    save_file(tensors, temporary, metadata=meta)
    temporary.replace(path)


def read_clips(path: Path) -> list[Clip]:
    """Read a feature file.

    Raises:
        DataError: If the file is missing, damaged or of another format.
    """
    try:
        with safe_open(path, framework="np") as file:
            meta = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"feature file {path} cannot be read ({error}): run tamulag extract"
        ) from error
    if meta.get("format") != FORMAT:
        raise DataError(
            f"feature file {path} has format {meta.get('format')!r}, expected {FORMAT!r}"
        )
    try:
        count = len(tensors["label"])
        corpora, modes = (
            json.loads(meta[key]) if key in meta else [default] * count
            for key, default in (("corpora", path.stem), ("modes", ""))
        )
        return _clips(tensors, json.loads(meta["groups"]), corpora, modes)
    except (LookupError, ValueError, TypeError, RecursionError) as error:
        raise DataError(
            f"feature file {path} is damaged ({type(error).__name__}): run tamulag extract"
        ) from error


def _clips(
    tensors: Mapping[str, npt.NDArray[Any]],
    groups: Sequence[str],
    corpora: Sequence[str],
    modes: Sequence[str],
) -> list[Clip]:
    cuts = {
        name: np.concatenate([[0], np.cumsum(tensors[f"{name}.lengths"])])
        for name in MODALITIES
        if f"{name}.lengths" in tensors
    }
    return [
        Clip(
            float(label),
            groups[row],
            {
                name: tensors[f"{name}.values"][cut[row] : cut[row + 1]].astype(np.float32)
                for name, cut in cuts.items()
                if cut[row + 1] > cut[row]
            },
            {
                name: tensors[f"{name}.ticks"][cut[row] : cut[row + 1]]
                for name, cut in cuts.items()
                if cut[row + 1] > cut[row]
            },
            {
                name: float(tensors[key][row])
                for name in MODALITIES
                if (key := f"{name}.label") in tensors and not math.isnan(tensors[key][row])
            },
            corpora[row],
            modes[row],
        )
        for row, label in enumerate(tensors["label"])
    ]


def write_texts(path: Path, rows: Iterable[tuple[str, float]]) -> int:
    """Write texts and their sentiment in [-3, 3] as a CSV, atomically, and return their number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        count = sum(1 for row in rows if writer.writerow([row[0], f"{row[1]:.4f}"]))
    temporary.replace(path)
    return count


def read_texts(path: Path) -> list[tuple[str, float, str]]:
    """Read a CSV with the columns `text,label` and optionally `video_id`.

    Returns:
        Text, sentiment in [-3, 3] and group (the video, else the row's last line) of each row.

    Raises:
        DataError: If the file, a column or a number is missing or out of range.
    """
    return [(row.text, row.label, row.group) for row in read_labelled(path)]


def read_labelled(path: Path, *, mode: str | None = None, limit: float = LIMIT) -> list[TextRow]:
    """Read a CSV of texts in the form of the field's `label.csv`.

    Args:
        path: CSV with the columns `text,label` and optionally `video_id`, `mode` and the human
            labels `label_T`, `label_A`, `label_V`.
        mode: Keep the rows of one split, e.g. `train`; None: all rows.
        limit: Labels lie in [-limit, limit]: 3 for CMU-MOSI and CMU-MOSEI, 1 for CH-SIMS.

    Raises:
        DataError: If the file, a column or a number is missing or out of range.
    """
    return [
        TextRow(
            row["text"] or "",
            _label(path, line, row, "label", limit),
            row.get("video_id") or str(line),
            {n: _label(path, line, row, key, limit) for n, key in HUMAN.items() if row.get(key)},
            row.get("mode") or "",
            _place(row.get("clip_id")),
        )
        for line, row in _table(path, {"text", "label"}, mode)
    ]


def read_media(
    path: Path, *, folder: Path | None = None, mode: str | None = None, limit: float = LIMIT
) -> list[MediaRow]:
    """Read a CSV with the columns `file,label` and optionally `text` and `group` or `speaker`.

    Args:
        path: The CSV; without a group the file is one of its own.
        folder: Where the files lie; None: beside the CSV.
        mode: Keep the rows of one split, as `read_labelled` does.
        limit: Labels lie in [-limit, limit].

    Raises:
        DataError: If the CSV, a column, a file or a number is missing or out of range.
    """
    rows = []
    for line, row in _table(path, {"file", "label"}, mode):
        file = named_file(folder or path.parent, row["file"])
        if not file.is_file():
            remedy = "correct the column file, or remove the row"
            raise DataError(f"{path} line {line}: no file {file}: {remedy}")
        label = _label(path, line, row, "label", limit)
        rows.append(MediaRow(file, label, row.get("text") or "", _group(row)))
    return rows


def named_file(folder: Path, name: str) -> Path:
    """Return the file of a name, also where the disk has its letters in the other normal form.

    An accented letter is one character or two in Unicode; tables and disks differ in that.
    """
    forms = [folder / one for one in (name, normalize("NFC", name), normalize("NFD", name))]
    return next((file for file in forms if file.is_file()), forms[0])


def _group(row: Mapping[str, str]) -> str:
    return row.get("group") or row.get("speaker") or row["file"]


def _place(clip_id: str | None) -> float:
    return float(clip_id) if clip_id and clip_id.isdecimal() else 0.0


def is_media(path: Path) -> bool:
    """Return whether a CSV is one of media files: whether it has a column `file`.

    Raises:
        DataError: If it cannot be read.
    """
    return "file" in csv_columns(path)


def has_modes(path: Path) -> bool:
    """Return whether a CSV has a column `mode` that splits its rows.

    Raises:
        DataError: If it cannot be read.
    """
    return "mode" in csv_columns(path)


def csv_columns(path: Path) -> list[str]:
    """Return the names of a CSV's columns, without blanks around them.

    Raises:
        DataError: If it cannot be read, or names a column twice.
    """
    with _opened(path) as lines:
        return _header(path, lines)


def csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield last line and fields of each row, by column.

    Raises:
        DataError: If it cannot be read, or a row has more or fewer fields than there are columns:
            it holds a comma too many or too few, and nobody can say where.
    """
    with _opened(path) as lines:
        header = _header(path, lines)
        for row in lines:
            if row:
                _check_width(path, lines.line_num, header, row)
                yield lines.line_num, dict(zip(header, row, strict=True))


@contextmanager
def _opened(path: Path) -> "Iterator[Reader]":
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield csv.reader(file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a CSV: {error}") from error


def _header(path: Path, lines: "Reader") -> list[str]:
    header = [name.strip() for name in next(lines, [])]
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise DataError(f"{path} line 1: column {', '.join(twice)} is there twice: rename one")
    return header


def _check_width(path: Path, line: int, header: list[str], row: list[str]) -> None:
    if len(row) == len(header):
        return
    column, remedy = header[-1], "put a text that holds commas in double quotes"
    if len(row) < len(header):
        column, remedy = header[len(row)], "write a comma for each column, also for an empty one"
    raise DataError(
        f"{path} line {line}, column {column}: the row has {len(row)} fields and the header "
        f"{len(header)}: {remedy}"
    )


def _table(path: Path, wanted: set[str], mode: str | None) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield last line and values of each row; DataError without a column or a row of the mode."""
    columns = csv_columns(path)
    missing = (wanted | ({"mode"} if mode else set())) - set(columns)
    if missing:
        remedy = ""
        if missing == {"text"} and "file" in columns:
            remedy = "; add it, or have the words recognised with --asr moonshine"
        raise DataError(
            f"{path}: column {', '.join(sorted(missing))} is missing: "
            f"found {','.join(columns) or 'nothing'}{remedy}"
        )
    seen = set()
    for line, row in csv_rows(path):
        seen.add(row.get("mode"))
        if mode is None or row["mode"] == mode:
            yield line, row
    if mode and seen and mode not in seen:
        there = ", ".join(sorted(map(str, seen)))
        raise DataError(f"{path}: no row has the mode {mode!r}: there are {there}")


def _label(path: Path, line: int, row: dict[str, str], column: str, limit: float) -> float:
    try:
        label = float(row[column])
    except (TypeError, ValueError):
        label = math.nan
    if not -limit <= label <= limit:
        raise DataError(
            f"{path} line {line}: {column} {row[column]!r} must be a number "
            f"in [-{limit:g}, {limit:g}]"
        )
    return label
