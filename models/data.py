"""Clips with labels as feature files, and CSVs of texts.

Knows arrays, safetensors files and CSV files. Knows no front end: `tamulag extract` fills these
files with the features that run live. Nothing in a feature file can run code.
"""

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from .tam_ulag import LIMIT, MODALITIES

FORMAT = "tamulag-features-1"
Array = npt.NDArray[np.float32]


class DataError(RuntimeError):
    """A data file cannot be used; the text names the file, the row and the remedy."""


@dataclass(frozen=True)
class Clip:
    """One labelled clip: its valid feature vectors, oldest first, and when they happened."""

    label: float
    """Sentiment in [-3, 3]."""
    group: str
    """Who speaks, or another name of what must not be split between training and validation."""
    values: dict[str, Array]
    """Per modality (T, D) float32; a modality without anything valid is left out."""
    ticks: dict[str, npt.NDArray[np.int64]]
    """Per modality (T,), ticks of 20 ms from the clip's start."""


def write_clips(path: Path, clips: Sequence[Clip], *, about: str) -> None:
    """Write a feature file, atomically; values are kept as float16 to halve it.

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
    meta = {"format": FORMAT, "about": about, "groups": json.dumps([clip.group for clip in clips])}
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
    groups = json.loads(meta["groups"])
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
        )
        for row, label in enumerate(tensors["label"])
    ]


def read_texts(path: Path) -> list[tuple[str, float, str]]:
    """Read a CSV with the columns `text,label` and optionally `video_id`.

    Returns:
        Text, sentiment in [-3, 3] and group (the video, else the row's last line) of each row.

    Raises:
        DataError: If the file, a column or a number is missing or out of range.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = {"text", "label"} - set(reader.fieldnames or ())
            if missing:
                raise DataError(
                    f"{path}: column {', '.join(sorted(missing))} is missing: "
                    f"expected text,label, found {','.join(reader.fieldnames or ())}"
                )
            return [_row(path, reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a CSV of texts: {error}") from error


def _row(path: Path, line: int, row: dict[str, str]) -> tuple[str, float, str]:
    try:
        label = float(row["label"])
    except (TypeError, ValueError):
        label = float("nan")
    if not -LIMIT <= label <= LIMIT:
        raise DataError(f"{path} line {line}: label {row['label']!r} must be a number in [-3, 3]")
    return row["text"] or "", label, row.get("video_id") or str(line)


def text_clips(rows: Iterable[tuple[str, float, str]], states: Iterable[Array]) -> list[Clip]:
    """Return clips of written text: all words stand at tick 0, as nobody spoke them.

    Args:
        rows: As `read_texts` returns them.
        states: Token states (K, 384) of each row.
    """
    return [
        Clip(
            label,
            group,
            {"text": values} if len(values) else {},
            {"text": np.zeros(len(values), np.int64)} if len(values) else {},
        )
        for (_, label, group), values in zip(rows, states, strict=True)
    ]
