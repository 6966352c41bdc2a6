"""The verb that measures the live score on streams of turns: `tamulag bench live`.

Knows CSVs of texts and of media files. Knows no session.
"""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from .bench import plain, table
from .data import Asr, Json, Mode, bar, quiet_threads
from .turns import PAUSE, open_live


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
    pause: Annotated[float, typer.Option(min=0.5, max=10, help="Seconds between turns.")] = PAUSE,
    attention: Annotated[
        Literal["turn", "window"],
        typer.Option(help="window: on all of the window, as it was at first."),
    ] = "turn",
    asr: Asr = "none",
    mode: Mode = None,
    as_json: Json = False,
) -> None:
    """Play sentences or clips of a person one after the other: is each scored as if it were alone?

    Rows of one `video_id` (or `speaker`) are one stream, in the order of `clip_id` where there is
    one. Beside each figure stands the central 95 % over resampled streams.

    Example: tamulag bench live --data valid.csv
    """
    quiet_threads()
    from tamulag.models.data.clips import is_media

    from ..bench.live_turns import figure_intervals, figures, person_scores

    chosen = head
    if chosen == "auto":
        chosen = "all" if is_media(data) else "text"
    live = open_live(data, checkpoint, chosen, mode=mode, asr=asr, attention=attention)
    persons = []
    with bar("streams", len(live.streams)) as progress:
        for done, turns in enumerate(live.streams, 1):
            persons.append(person_scores(live.opened, turns, live.head, pause=pause))
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
