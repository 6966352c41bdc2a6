"""The verb that measures how far scores can be trusted: `tamulag bench validity`.

Knows folders of CSVs. Parts are imported only when it runs.
"""

import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .bench import plain, table, within
from .data import Asr, Json, Workers, on_media, quiet_threads, read_media_rows

if TYPE_CHECKING:
    from tamulag.models.data.clips import MediaRow, TextRow
    from tamulag.models.evaluation.validity import Agreement

    from ..offline.extract import Speech


def register(bench_app: typer.Typer) -> None:
    """Add the verb of this file to `tamulag bench`."""
    bench_app.command("validity")(bench_validity)


def bench_validity(
    data: Annotated[Path, typer.Option(help="Folder of CSVs, one for each group; or one CSV.")],
    checkpoint: Annotated[str, typer.Option(help="Name or .safetensors file.")] = "default",
    asr: Asr = "none",
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Compare each head and the fused score with people, for groups of clips of one kind each.

    A CSV has `file,label` and optionally `text` and `speaker`, or `text,label` and optionally
    `video_id`; labels lie in [-3, 3], everyday neutral ones are 0. Each clip is scored once, at
    its end. Beside each figure stands the central 95 % over resampled people.

    Example: tamulag bench validity --data groups/
    """
    quiet_threads()
    from tamulag.models.data.clips import DataError

    files = sorted(data.glob("*.csv")) if data.is_dir() else [data]
    if not files:
        raise DataError(f"{data} holds no CSV: give a folder of CSVs with file,label or text,label")
    for path in files:
        _read(path)  # a wrong table is reported before hours of media are played
    rows = [
        {"group": path.stem, **asdict(one)}
        for path in files
        for one in _group(path, checkpoint, asr, workers)
    ]
    if as_json:
        print(json.dumps({"rows": [plain(row) for row in rows]}))
        return
    table(
        {"group": row["group"], "head": row["head"], "n": row["n"]}
        | {key: within(value, *row["intervals"][key]) for key, value in row["figures"].items()}
        for row in rows
    )


def _read(path: Path) -> "list[MediaRow] | list[TextRow]":
    from tamulag.models.data.clips import is_media
    from tamulag.models.evaluation.evaluate import read_rows

    return read_media_rows(path, "mosi", None) if is_media(path) else read_rows(path)


def _group(path: Path, checkpoint: str, asr: "Speech", workers: int | None) -> "list[Agreement]":
    from tamulag.models.data.clips import is_media
    from tamulag.models.evaluation.evaluate import open_evaluation, read_rows
    from tamulag.models.evaluation.validity import agreements

    if is_media(path):
        ready, clips = on_media(path, checkpoint, "all", "mosi", asr, None, workers)
    else:
        ready = open_evaluation(checkpoint, head="all")
        clips = partial(ready.texts, read_rows(path))
    found = agreements(ready.model, ready.card, clips(1.0))
    if not found:
        print(f"{path}: no head has anything to score in it", file=sys.stderr)
    return found
