"""The verb extract: labelled videos, pictures and sentences become files to train on.

Knows its options and what it prints. Parts are imported only by the corpus that needs them.
"""

import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .data import Asr, Mode, Workers, bar, media_features, quiet_threads

if TYPE_CHECKING:
    from tamulag.models.data.clips import Clip, MediaRow, TextRow

    from ..offline.extract import MediaFeatures

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
    """Add the verb of this file to the command line."""
    app.command()(extract)


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
        float | None,
        typer.Option(
            min=0, max=1, help="Of the teacher in the label, the rest is people's. Default: 0.5."
        ),
    ] = None,
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
    if share is not None and teacher is None:
        raise typer.BadParameter(
            f"{share:g} is that of a --teacher: name one", param_hint="--share"
        )
    if vary is not None and corpus not in (None, "ravdess", "voices"):
        raise typer.BadParameter(f"{corpus} has no sound: leave it out", param_hint="--vary")
    quiet_threads()
    from tamulag.models.data.clips import read_labelled, read_media

    from ..offline import corpora
    from ..offline import extract as front

    about = f"{corpus or 'videos'} of {data.name}"
    if corpus in ("vader", "meld", "emobank"):
        _write_sentences(out, getattr(corpora, corpus)(data))
    elif corpus in ("spoken", "taught"):
        rows = read_labelled(data, mode=mode)
        with bar("extract", len(rows)) as progress:
            _write_sentences(out, _relabelled(rows, teacher, share, progress))
    elif corpus == "texts":
        rows = read_labelled(data, mode=mode)
        with bar("extract", len(rows)) as progress:
            _write_clips(out, front.texts(rows, progress), about)
    elif corpus in ("faces-train", "faces-valid"):
        with bar("extract", None) as progress:
            split = corpus.removeprefix("faces-")
            _write_clips(out, front.pictures(corpora.faces(data, split), progress), about)
    else:
        table = csv or data / "labels.csv"
        media = (
            list(corpora.ravdess(data) if corpus == "ravdess" else corpora.voices(data))
            if corpus in ("ravdess", "voices")
            else read_media(table if table.is_file() else data / table, folder=data, mode=mode)
        )
        if vary is not None:
            media, about = _varied(media, vary, out), f"{about}, sound varied"
        collected = partial(media_features, speech=asr, workers=workers, engine=engine, ray=ray)
        _extract_media(media, out, collected, about)


def _write_clips(out: Path, clips: "Sequence[Clip]", about: str) -> None:
    from tamulag.models.data.clips import write_clips

    write_clips(out, clips, about=about)
    print(f"{out}: {len(clips)} clips")


def _write_sentences(out: Path, rows: "Iterable[tuple[str, float]]") -> None:
    from tamulag.models.data.clips import write_texts

    print(f"{out}: {write_texts(out, rows)} sentences")


def _relabelled(
    rows: "Sequence[TextRow]",
    teacher: str | None,
    share: float | None,
    progress: Callable[[int], None],
) -> "Iterator[tuple[str, float]]":
    """Return sentences with labels that a teacher has a share in, else as they are recognised."""
    if teacher is None:
        from ..offline.spoken import spoken

        return spoken(rows, progress)
    from tamulag.models.training.taught_labels import taught

    return taught(rows, teacher, 0.5 if share is None else share, progress)


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
