"""The verb that measures the live score on streams of turns: `tamulag bench live`.

Knows CSVs of texts and of media files. Knows no session.
"""

import json
from collections import defaultdict
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .bench import plain, table
from .data import Json, bar, quiet_threads

if TYPE_CHECKING:
    from ..bench.live_turns import TurnInputs

WORD_RATE = 2.5
"""Words per second of English speech, where only the text is known."""


def register(bench_app: typer.Typer) -> None:
    """Add the verb of this file to `tamulag bench`."""
    bench_app.command("live")(bench_live)


def bench_live(
    data: Annotated[
        Path, typer.Option(help="CSV of texts (video_id) or of media (file, speaker).")
    ],
    checkpoint: Annotated[str, typer.Option(help="Name or .safetensors file.")] = "default",
    head: Annotated[
        Literal["auto", "text", "audio", "vision", "all"],
        typer.Option(help="auto: text for texts, all for media."),
    ] = "auto",
    pause: Annotated[float, typer.Option(min=0.5, max=10, help="Seconds between turns.")] = 1.0,
    attention: Annotated[
        Literal["turn", "window"],
        typer.Option(help="window: on all of the window, as it was at first."),
    ] = "turn",
    mode: Annotated[str | None, typer.Option(help="Rows of one split, e.g. valid.")] = None,
    as_json: Json = False,
) -> None:
    """Play sentences or clips of a person one after the other: is each scored as if it were alone?

    Rows of one `video_id` (or `speaker`) are one stream, in the order of `clip_id` where there is
    one. Beside each figure stands the central 95 % over resampled streams.

    Example: tamulag bench live --data valid.csv
    """
    quiet_threads()
    from tamulag.models.data.clips import is_media
    from tamulag.models.runtime.checkpoint import load
    from tamulag.models.runtime.torch_engine import TorchEngine

    from ..bench.live_turns import figure_intervals, figures, person_scores
    from ..core.estimate import Timing
    from ..core.session import Session

    model, card = load(checkpoint)
    media = is_media(data)
    chosen = ("all" if media else "text") if head == "auto" else head
    asked = ("text", "audio", "vision") if media else ("text",)
    streams = _media_streams(data, checkpoint, mode) if media else _texts(data, checkpoint, mode)
    persons, timing = [], Timing(attention=attention)
    with bar("streams", len(streams)) as progress:
        for done, turns in enumerate(streams, 1):
            persons.append(
                person_scores(
                    lambda: Session(TorchEngine(model), card, asked, timing),
                    turns,
                    "fused" if chosen == "all" else chosen,
                    pause=pause,
                )
            )
            progress(done)
    found, bounds = figures(persons), figure_intervals(persons)
    if as_json:
        print(json.dumps(plain({"head": chosen, **found, "intervals": bounds})))
        return
    table(
        {"figure": key, "value": value, "from": low, "to": high}
        for key, value in found.items()
        for low, high in [bounds.get(key, (value, value))]
    )


def _texts(path: Path, checkpoint: str, mode: str | None) -> "list[list[TurnInputs]]":
    from tamulag.models.data.clips import read_labelled
    from tamulag.models.text.text_encoder import encoder_for

    from ..bench.live_turns import text_turn
    from ..core.estimate import Timing
    from ..features.asr.transcript import MAX_WORDS

    encoder, streams = encoder_for(checkpoint), defaultdict(list)
    rows = [row for row in read_labelled(path, mode=mode) if encoder.split(row.text)]
    with bar("texts", len(rows)) as progress:
        for done, row in enumerate(sorted(rows, key=lambda row: row.place), 1):
            words = encoder.split(row.text)[-MAX_WORDS:]
            seconds = max(len(words) / WORD_RATE, Timing().hop)
            turn = text_turn(words, row.label, encoder.encode, seconds=seconds, step=Timing().hop)
            streams[row.group].append(turn)
            progress(done)
    return [*streams.values()]


def _media_streams(path: Path, checkpoint: str, mode: str | None) -> "list[list[TurnInputs]]":
    from tamulag.models.data.clips import read_media
    from tamulag.models.text.text_encoder import encoder_for

    from ..bench.live_turns import TurnInputs, text_turn
    from ..core.estimate import Timing
    from ..core.sample import TICK_RATE, Input, Sample
    from ..offline.extract import play, stack_inputs

    rows, streams = read_media(path, mode=mode), defaultdict(list)
    encoder = encoder_for(checkpoint) if any(row.text for row in rows) else None
    with bar("files", len(rows)) as progress:
        for done, row in enumerate(rows, 1):
            found = play(row.file)
            length = stack_inputs(found).length / TICK_RATE
            inputs: list[Input] = [item for item in found if isinstance(item, Sample)]
            words = encoder.split(row.text) if encoder else []
            if encoder and words:
                step = Timing().hop
                inputs += text_turn(words, 0.0, encoder.encode, seconds=length, step=step).inputs
            inputs.sort(key=attrgetter("timestamp"))
            streams[row.group].append(TurnInputs(inputs, length, row.label))
            progress(done)
    return [*streams.values()]
