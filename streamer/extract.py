"""Material with labels becomes feature files, through the front end that runs live.

Knows the feature extractors, media files and texts. Knows no model and no training.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from tamulag.models.data import Clip, text_clips
from tamulag.models.text import TextEncoder

from .audio import AudioFeatures
from .corpora import Row
from .media import MediaSource
from .sample import Input, Sample, tick_of
from .sound import SoundPath
from .vision import VisionFeatures

Progress = Callable[[int], None]
"""Called with the number of rows that are done."""

BATCH = 256


def texts(rows: Sequence[tuple[str, float, str]], progress: Progress) -> list[Clip]:
    """Encode the rows of a CSV of texts as token states."""
    encoder = TextEncoder()
    states = []
    for first in range(0, len(rows), BATCH):
        states += encoder.encode_batch([text for text, _, _ in rows[first : first + BATCH]])
        progress(len(states))
    return text_clips(rows, states)


def pictures(rows: Iterable[Row], progress: Progress) -> list[Clip]:
    """Describe single pictures; one without a face is left out."""
    clips = []
    with VisionFeatures(still=True) as vision:
        for done, row in enumerate(rows, 1):
            if row.picture is not None:
                values = vision.push(row.picture, done / 10).values
                if values is not None:
                    ticks = np.zeros(1, np.int64)
                    clips.append(
                        Clip(row.label, row.group, {"vision": values[None]}, {"vision": ticks})
                    )
            progress(done)
    return clips


def media(rows: Iterable[Row], progress: Progress) -> list[Clip]:
    """Describe sound and picture of media files; words are not recognised here."""
    clips = []
    for done, row in enumerate(rows, 1):
        if row.media is not None:
            clips.append(clip(row.label, row.group, samples(row.media)))
        progress(done)
    return clips


def samples(path: Path) -> list[Sample]:
    """Play a media file through the live path at full speed and return what it gives."""
    found: list[Input] = []
    sound = SoundPath(AudioFeatures(), None, threaded=False)
    with VisionFeatures() as vision:
        source = MediaSource(str(path), sound=sound, vision=vision, now=None, speed="max")
        source.open()
        source.run(found.append, threading.Event())
    return [item for item in found if isinstance(item, Sample)]


def clip(label: float, group: str, found: Sequence[Sample]) -> Clip:
    """Stack what was measured; what was masked live is left out here."""
    values, ticks = {}, {}
    for name in ("audio", "vision"):
        valid = [(s.values, tick_of(s.timestamp)) for s in found if s.modality == name]
        rows = [(v, t) for v, t in valid if v is not None]
        if rows:
            values[name] = np.stack([v for v, _ in rows])
            ticks[name] = np.array([t for _, t in rows], np.int64)
    return Clip(label, group, values, ticks)
