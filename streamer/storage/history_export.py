"""A past session as a file: JSON lines, CSV, Parquet or EmotionML.

Knows each format, and writes in pieces, so that memory does not grow with the length of a session.
Knows no database.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import BinaryIO, Literal

import pyarrow as pa
from pyarrow import csv, parquet

from ..core.sample import MODALITIES
from ..protocol import messages
from ..protocol.emotionml import document
from ..protocol.messages import SentimentMessage
from .history_db import PastSession

Form = Literal["csv", "parquet", "jsonl", "emotionml"]

ROWS = 5000
"""Rows of a table in memory at once."""

_MODALITY = (
    ("sentiment", pa.float64()),
    ("weight", pa.float64()),
    ("status", pa.string()),
    ("reason", pa.string()),
    ("age", pa.float64()),
)

SCHEMA = pa.schema(
    [
        ("session", pa.string()),
        ("seq", pa.int64()),
        ("time", pa.string()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("warmup", pa.bool_()),
        ("sentiment", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("label", pa.string()),
        ("conflict", pa.float64()),
        *((f"{name}_{key}", kind) for name in MODALITIES for key, kind in _MODALITY),
        ("attended", pa.string()),
        ("latency", pa.float64()),
        ("trend", pa.float64()),
        *((f"{name}_scale", pa.float64()) for name in MODALITIES),
    ]
)
"""One row per score; `low` and `high` are its interval, `attended` the heaviest words in spoken
order."""


FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""With what a formula begins in a spreadsheet, in wide forms too."""

SAME = {"session", "seq", "time", "sentiment", "trend", "label", "conflict"}
"""Keys of a score that are columns as they are."""


def write(form: Form, past: PastSession, lines: Iterable[str], out: BinaryIO) -> None:
    """Write a session.

    Args:
        form: `jsonl` has every message as it was sent; the others have the scores alone.
        past: The session.
        lines: Its messages, in order.
        out: Destination; it stays open.
    """
    if form == "jsonl":
        for line in lines:
            out.write(line.encode() + b"\n")
    elif form == "emotionml":
        about = f"tamulag-stream {past.hello['version']}, session {past.id}"
        for line in document(_scores(lines), past.started, about):
            out.write(line.encode())
    else:
        _write_table(form, lines, out)


def _write_table(form: Form, lines: Iterable[str], out: BinaryIO) -> None:
    writer: Callable[..., pa.Table] = csv.CSVWriter if form == "csv" else parquet.ParquetWriter
    with writer(out, SCHEMA) as table:
        rows = map(_row, _scores(lines))
        if form == "csv":
            rows = map(_as_cells, rows)
        while batch := list(islice(rows, ROWS)):
            table.write_batch(pa.RecordBatch.from_pylist(batch, SCHEMA))


def _scores(lines: Iterable[str]) -> Iterator[SentimentMessage]:
    for line in lines:
        sent = messages.decode(line)
        if isinstance(sent, SentimentMessage):
            yield sent


def _as_cells(row: dict[str, object]) -> dict[str, object]:
    """Return a row whose texts a spreadsheet shows: it would run one that begins a formula."""
    return {
        key: f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
        for key, value in row.items()
    }


def _row(score: SentimentMessage) -> dict[str, object]:
    low, high = score.interval or (None, None)
    row: dict[str, object] = {
        **score.model_dump(include=SAME),
        **score.window.model_dump(),
        "low": low,
        "high": high,
        "attended": " ".join(word for word, *_ in sorted(score.attention.text, key=lambda w: w[1])),
        "latency": score.latency.total,
    }
    for name in MODALITIES:
        part = getattr(score.modalities, name)
        row |= {f"{name}_{key}": getattr(part, key) for key, _ in _MODALITY}
        row[f"{name}_scale"] = part.scale
    return row
