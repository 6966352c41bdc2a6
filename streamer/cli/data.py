"""The verb evaluate, and what verbs of data share.

Knows its options and what it prints. Parts are imported only by the verb that needs them.
"""

import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from tamulag.models.data.clips import Clip, MediaRow
    from tamulag.models.data.label_scale import Form
    from tamulag.models.evaluation.evaluate import Evaluation, Head

    from ..offline.extract import MediaFeatures, Speech
    from ..offline.extract_pool import Engine

Json = Annotated[bool, typer.Option("--json", help="One JSON object on the last line of stdout.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes for media files. Default: one per core.")
]
Mode = Annotated[str | None, typer.Option(help="Rows of one split alone, by the column mode.")]
Asr = Annotated[
    Literal["none", "moonshine"], typer.Option(help="Recognises words where the CSV has no text.")
]


def register(app: typer.Typer) -> None:
    """Add the verb of this file to the command line."""
    app.command()(evaluate)


def evaluate(
    data: Annotated[
        Path, typer.Option(help="CSV with text,label or with file,label[,text][,group].")
    ],
    checkpoint: Annotated[str, typer.Option(help="Name or .safetensors file.")] = "default",
    modality: Annotated[
        Literal["text", "audio", "vision", "all"] | None,
        typer.Option(help="Head. Default: text for a CSV of texts, all for media."),
    ] = None,
    metrics: Annotated[
        Literal["mosi", "sims"], typer.Option(help="mosi: labels in [-3, 3]; sims: in [-1, 1].")
    ] = "mosi",
    anytime: Annotated[
        bool, typer.Option("--anytime", help="Also after 20, 40, 60, 80, 100 % of each clip.")
    ] = False,
    live: Annotated[
        bool, typer.Option("--live", help="As streams: rows of one video_id or speaker in order.")
    ] = False,
    asr: Asr = "none",
    mode: Mode = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Measure a checkpoint on labelled texts or media files: MAE, Corr, Acc2, F1 and more.

    A clip is scored once, at its end, over its whole length. Where the modality is missing the
    score is 0; `missing` counts these. `mean`, `deviation`, `beyond_1` (share further than 1
    from 0) are of the estimates; `covered` is the share of labels inside the 90 % interval.

    With `--live` the same figures are of what a session says at the end of each row, when the rows
    of one video or speaker are played one after the other, a second between two; of texts 2.5
    words are said per second. `tamulag bench live` compares that with each row alone.

    Example: tamulag evaluate --data valid.csv --json
    """
    quiet_threads()
    from tamulag.models.data.clips import is_media
    from tamulag.models.evaluation.evaluate import open_evaluation, read_rows

    media = is_media(data)
    head = modality or ("all" if media else "text")
    if live:
        if anytime:
            raise typer.BadParameter("cannot be used with --live", param_hint="--anytime")
        from .turns import figures_at_the_end, open_live

        streams = open_live(data, checkpoint, head, form=metrics, mode=mode, asr=asr)
        show(figures_at_the_end(streams, metrics) | {"live": True}, as_json)
        return
    clips: Callable[[float], list[Clip]]
    if media and (head != "text" or asr != "none"):
        ready, clips = on_media(data, checkpoint, head, metrics, asr, mode, workers)
    else:
        rows = read_rows(data, metrics, mode)
        ready = open_evaluation(checkpoint, head=head, form=metrics)
        clips = partial(ready.texts, rows)
    show(ready.figures(clips(1.0)), as_json, ready.anytime(clips) if anytime else None)


def on_media(
    data: Path,
    checkpoint: str,
    head: "Head",
    form: "Form",
    speech: "Speech",
    mode: str | None,
    workers: int | None,
) -> "tuple[Evaluation, Callable[[float], list[Clip]]]":
    """Run the front end over a CSV of media files and open the checkpoint for their lengths."""
    from tamulag.models.data.clips import DataError
    from tamulag.models.evaluation.evaluate import open_evaluation

    from ..offline.extract import MediaFeatures, clip_of

    rows = read_media_rows(data, form, mode)
    # Opened twice, so that a wrong name is reported before the files are played.
    open_evaluation(checkpoint, head=head, form=form)
    with tempfile.TemporaryDirectory() as folder:
        files = [row.file for row in rows]
        about = f"extract {data.name}"
        parts = media_features(files, Path(folder), speech=speech, workers=workers, about=about)
    if not parts:
        raise DataError(f"{data}: none of {len(rows)} files could be read")
    longest = max(part.length for part in parts.values())
    ready = open_evaluation(checkpoint, head=head, form=form, window=longest)
    nothing = MediaFeatures({}, {})

    def clips(share: float) -> "list[Clip]":
        encode = ready.encoder.encode
        return [clip_of(row, parts.get(row.file, nothing), encode, share) for row in rows]

    return ready, clips


def read_media_rows(data: Path, form: "Form", mode: str | None) -> "list[MediaRow]":
    """Read a CSV of media files, with labels in the range of the form.

    Raises:
        DataError: If the CSV cannot be used or is empty.
    """
    from tamulag.models.data.clips import read_media
    from tamulag.models.data.label_scale import LIMITS
    from tamulag.models.evaluation.evaluate import filled

    return filled(read_media(data, mode=mode, limit=LIMITS[form]), data, "file")


def media_features(
    files: Sequence[Path],
    folder: Path,
    *,
    speech: "Speech",
    workers: int | None,
    engine: "Engine" = "processes",
    ray: str | None = None,
    about: str = "extract",
) -> "dict[Path, MediaFeatures]":
    """Extract features of files with a progress bar; report files that cannot be read.

    Args:
        files: To be played.
        folder: Where what is done is kept for the next run.
        speech: Recogniser of the words.
        workers: Processes; None: one per core.
        engine: What plays the files.
        ray: HOST:PORT of a cluster; None: this machine.
        about: Shown beside the bar.

    Returns:
        Of each file that could be read.
    """
    from ..offline.extract_pool import extract_all, load_features

    problems: list[str] = []
    unique = len(set(files))
    with bar(about, unique) as progress:
        finished = 0

        def done(_: Path, problem: str | None) -> None:
            nonlocal finished
            finished += 1
            progress(finished)
            if problem is not None:
                problems.append(problem)
                print(problem, file=sys.stderr)

        parts = extract_all(
            files, folder, speech=speech, workers=workers, done=done, engine=engine, ray=ray
        )
    if problems:
        print(f"{len(problems)} of {unique} files could not be read", file=sys.stderr)
    return {file: load_features(part) for file, part in parts.items()}


def show(
    figures: Mapping[str, float],
    as_json: bool,
    anytime: Sequence[Mapping[str, float]] | None = None,
) -> None:
    """Print figures for people, or as one JSON object in which what is not a number is null."""
    if as_json:
        rows = {} if anytime is None else {"anytime": [_plain(row) for row in anytime]}
        print(json.dumps(_plain(figures) | rows))
        return
    for key, value in figures.items():
        print(f"{key:24} {_written(value)}")
    for row in anytime or ():
        print("  ".join(f"{key} {_written(value)}" for key, value in row.items()))


def _plain(figures: Mapping[str, float]) -> dict[str, object]:
    return {key: None if math.isnan(value) else value for key, value in figures.items()}


def _written(value: float) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


@contextmanager
def bar(verb: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar with the time left on stderr; the value is called with what is done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeLeft())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(verb, total=total)
        yield lambda done: progress.update(task, completed=done)


def quiet_threads() -> None:
    """Let torch and numpy use one thread; to be called before they load."""
    # Two threads gave the model a p99 of 78 ms instead of 1.6 ms.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
