"""What `tamulag evaluate --live` and `tamulag bench live` share: CSVs become streams of turns.

Knows CSVs, checkpoints and what is printed while they are read. Parts are imported when they run.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from .data import bar, read_media_rows

if TYPE_CHECKING:
    from tamulag.models.data.label_scale import Form
    from tamulag.models.evaluation.evaluate import Head
    from tamulag.models.text.text_encoder import TextEncoder

    from ..core.session import Session
    from ..offline.extract import Speech
    from ..offline.turn_inputs import TurnInputs

PAUSE = 1.0
"""Seconds between two turns."""


class Live(NamedTuple):
    """Streams of turns, and the sessions that they are played through."""

    streams: "list[list[TurnInputs]]"
    opened: "Callable[[], Session]"
    """Returns a new session; of a head alone its modality is all that is asked for."""
    head: str
    """`fused`, `text`, `audio` or `vision`."""


def open_live(
    data: Path,
    checkpoint: str,
    head: "Head",
    *,
    form: "Form" = "mosi",
    mode: str | None = None,
    asr: "Speech" = "none",
    attention: Literal["turn", "window"] = "turn",
) -> Live:
    """Read a CSV of texts with `video_id`, or of media with `file` and `speaker`.

    Raises:
        CheckpointError: If the checkpoint cannot be used or its head is untrained.
        DataError: If the CSV cannot be used or is empty, or none of its files can be read.
    """
    from tamulag.models.data.clips import is_media
    from tamulag.models.evaluation.evaluate import check_sizes, open_evaluation
    from tamulag.models.runtime.torch_engine import TorchEngine

    from ..core.estimate import Timing
    from ..core.sample import MODALITIES
    from ..core.session import Session
    from ..offline.turn_inputs import sizes

    ready, timing = open_evaluation(checkpoint, head=head, form=form), Timing(attention=attention)
    if is_media(data):
        streams = _media(data, ready.encoder, timing.hop, form, mode, asr)
    else:
        streams = _texts(data, ready.encoder, timing.hop, form, mode)
    check_sizes(ready.model, sizes(streams))
    asked = MODALITIES if head == "all" else (head,)
    return Live(
        streams,
        lambda: Session(TorchEngine(ready.model), ready.card, asked, timing),
        "fused" if head == "all" else head,
    )


def figures_at_the_end(live: Live, form: "Form") -> dict[str, float]:
    """Return the figures of `tamulag evaluate`, of what is said live at the end of each turn.

    Raises:
        DataError: If nothing is said of any turn.
    """
    import numpy as np

    from tamulag.models.data.label_scale import label_scale
    from tamulag.models.evaluation.evaluate import compared, refuse_nothing

    from ..offline.turn_player import at_the_end

    with bar("streams", len(live.streams)) as progress:
        rows = at_the_end(live.opened, live.streams, live.head, pause=PAUSE, progress=progress)
    truth = np.array([turn.label for turn, _ in rows])
    inside = [
        said.holds(label) for (_, said), label in zip(rows, truth / label_scale(form), strict=True)
    ]
    found = compared(
        np.array([said.value for _, said in rows]),
        np.array([said.score is not None for _, said in rows]),
        np.array([np.nan if one is None else float(one) for one in inside]),
        truth,
        form,
    )
    refuse_nothing(found, live.head)
    return found


def _texts(
    data: Path, encoder: "TextEncoder", step: float, form: "Form", mode: str | None
) -> "list[list[TurnInputs]]":
    from tamulag.models.evaluation.evaluate import read_rows

    from ..offline.turn_inputs import text_streams

    rows = read_rows(data, form, mode)
    with bar("texts", len(rows)) as progress:
        return text_streams(rows, encoder, step, progress)


def _media(
    data: Path,
    encoder: "TextEncoder",
    step: float,
    form: "Form",
    mode: str | None,
    asr: "Speech",
) -> "list[list[TurnInputs]]":
    from tamulag.models.data.clips import DataError

    from ..offline.turn_inputs import media_streams

    rows, problems = read_media_rows(data, form, mode), list[str]()

    def failed(problem: str) -> None:
        problems.append(problem)
        print(problem, file=sys.stderr)

    with bar("files", len(rows)) as progress:
        streams = media_streams(rows, encoder, step, progress, speech=asr, failed=failed)
    if problems:
        print(f"{len(problems)} of {len(rows)} files could not be read", file=sys.stderr)
    if len(problems) == len(rows):
        raise DataError(f"{data}: none of {len(rows)} files could be read")
    return streams
