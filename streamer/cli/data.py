"""The verbs of data: evaluate, extract.

Knows their options and what they print. Parts are imported only by the verb that needs them.
"""

import json
import math
import os
import shutil
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
OnEngine = Annotated[
    Literal["processes", "ray"], typer.Option(help="What plays media files: ray = also a cluster.")
]
Ray = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Cluster for `--engine ray`. Default: this machine."),
]
Corpus = Literal[
    "texts",
    "spoken",
    "taught",
    "ravdess",
    "voices",
    "faces-train",
    "faces-valid",
    "vader",
    "meld",
    "emobank",
]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the command line."""
    for verb in (evaluate, extract):
        app.command()(verb)


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


def extract(
    data: Annotated[Path, typer.Argument(help="Folder of videos; a CSV for `--corpus texts`.")],
    out: Annotated[
        Path, typer.Option(help="Feature file to write, .safetensors; a CSV for sentences.")
    ],
    csv: Annotated[
        Path | None,
        typer.Option(help="CSV with file,label[,text][,group]. Default: labels.csv of DATA."),
    ] = None,
    corpus: Annotated[Corpus | None, typer.Option(help="DATA is a known corpus.")] = None,
    teacher: Annotated[
        str | None,
        typer.Option(help="With `--corpus taught`: the checkpoint whose scores are mixed in."),
    ] = None,
    share: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Of the teacher in the label; the rest is people's."),
    ] = 0.5,
    asr: Asr = "none",
    mode: Mode = None,
    vary: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=10,
            help="In place of the clips this many copies of each, 0.33 = of a third, with level, "
            "noise, room, band or codec of the sound changed; to train on beside the clips.",
        ),
    ] = None,
    workers: Workers = None,
    engine: OnEngine = "processes",
    ray: Ray = None,
) -> None:
    """Turn labelled videos into a feature file, through the front end that runs live.

    What is done of media files is stored in OUT.parts until all is done, so that a second run goes
    on where the first one was stopped.

    Example: tamulag extract my-videos --out features/mine.safetensors
    """
    if ray is not None and engine != "ray":
        raise typer.BadParameter(f"{ray} needs --engine ray beside it", param_hint="--ray")
    if (teacher is None) == (corpus == "taught"):
        raise typer.BadParameter(
            f"{teacher or 'none'}: goes with --corpus taught, which needs it",
            param_hint="--teacher",
        )
    if vary is not None and corpus not in (None, "ravdess", "voices"):
        raise typer.BadParameter(f"{corpus} has no sound: leave it out", param_hint="--vary")
    quiet_threads()
    from tamulag.models.data.clips import read_labelled, read_media, write_clips, write_texts

    from ..offline import corpora
    from ..offline import extract as front

    about = f"{corpus or 'videos'} of {data.name}"
    if corpus in ("vader", "meld", "emobank"):
        print(f"{out}: {write_texts(out, getattr(corpora, corpus)(data))} sentences")
        return
    if corpus == "spoken":
        from ..offline.spoken import spoken

        rows = read_labelled(data, mode=mode)
        with bar("extract", len(rows)) as progress:
            print(f"{out}: {write_texts(out, spoken(rows, progress))} sentences")
        return
    if corpus == "taught":
        from tamulag.models.training.taught_labels import taught

        assert teacher is not None
        rows = read_labelled(data, mode=mode)
        with bar("extract", len(rows)) as progress:
            print(f"{out}: {write_texts(out, taught(rows, teacher, share, progress))} sentences")
        return
    if corpus == "texts":
        rows = read_labelled(data, mode=mode)
        with bar("extract", len(rows)) as progress:
            clips = front.texts(rows, progress)
    elif corpus in ("faces-train", "faces-valid"):
        with bar("extract", None) as progress:
            split = corpus.removeprefix("faces-")
            clips = front.pictures(corpora.faces(data, split), progress)
    else:
        table = csv or data / "labels.csv"
        media = (
            list(corpora.ravdess(data) if corpus == "ravdess" else corpora.voices(data))
            if corpus in ("ravdess", "voices")
            else read_media(table if table.is_file() else data / table, folder=data, mode=mode)
        )
        if vary is not None:
            media, about = _varied(media, vary, out), f"{about}, sound varied"
        collected = partial(_collected, speech=asr, workers=workers, engine=engine, ray=ray)
        _extract_media(media, out, collected, about)
        return
    write_clips(out, clips, about=about)
    print(f"{out}: {len(clips)} clips")


def _varied(rows: "Sequence[MediaRow]", share: float, out: Path) -> "list[MediaRow]":
    """Write varied copies of clips' sound beside what is extracted; return them as clips."""
    from ..offline.sound_variation import varied

    folder = _parts_folder(out) / "sound"
    with bar("vary", len(rows)) as progress:
        return list(varied(_counted(rows, progress), share, folder, _complain))


def _counted(rows: "Sequence[MediaRow]", progress: Callable[[int], None]) -> "Iterator[MediaRow]":
    for number, row in enumerate(rows, 1):
        progress(number)
        yield row


def _complain(problem: str) -> None:
    print(problem, file=sys.stderr)


def _parts_folder(out: Path) -> Path:
    return out.with_name(f"{out.name}.parts")


def _extract_media(
    rows: "Sequence[MediaRow]",
    out: Path,
    collected: "Callable[[Sequence[Path], Path], dict[Path, MediaFeatures]]",
    about: str,
) -> None:
    """Write the feature file of media files; some may be unreadable, all may not."""
    from tamulag.models.data.clips import DataError, write_clips
    from tamulag.models.text.text_encoder import encoder_for

    from ..offline.extract import clip_of

    parts_folder = _parts_folder(out)
    parts = collected([row.file for row in rows], parts_folder)
    if not parts:
        raise DataError(f"{about}: none of {len(rows)} files could be read, nothing is written")
    encode = encoder_for().encode
    clips = [clip_of(row, parts[row.file], encode) for row in rows if row.file in parts]
    write_clips(out, clips, about=about)
    bare = [f.name for f, part in parts.items() if not (part.values or part.utterances)]
    if bare:
        names = ", ".join(bare[:5]) + (" ..." if len(bare) > 5 else "")
        print(f"no voice, face or word was found in {len(bare)}: {names}", file=sys.stderr)
    left_out = len(rows) - len(clips)
    if left_out == 0:
        shutil.rmtree(parts_folder)
    print(f"{out}: {len(clips)} clips, {left_out} left out")


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
        parts = _collected(files, Path(folder), speech=speech, workers=workers, about=about)
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


def _collected(
    files: Sequence[Path],
    folder: Path,
    *,
    speech: "Speech",
    workers: int | None,
    engine: "Engine" = "processes",
    ray: str | None = None,
    about: str = "extract",
) -> "dict[Path, MediaFeatures]":
    """Extract features of files with a progress bar; report files that cannot be read."""
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
