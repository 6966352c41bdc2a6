"""How people weigh voice and face: the votes of CREMA-D on voice alone, face alone and both.

Knows the table of votes. Knows no model.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..data.clips import DataError, csv_rows

VALENCE = {"H": 2.4, "N": 0.0, "A": -1.5, "F": -1.65, "D": -1.8, "S": -1.95}
"""Sentiment of an emotion; the mapping that the faces' labels have."""
KINDS = ("1", "2", "3")
"""First digit of a row's number: voice, face, both."""
APART = 1.5
"""Distance of voice and face that is called a conflict."""


class Weighing(NamedTuple):
    """How the sentiment of both together follows from that of voice and face."""

    clips: int
    voice: float
    """Weight by least squares: both = w_v voice + w_f face + constant."""
    face: float
    fit: float
    """Share of the variance that this explains."""
    conflicts: int
    """Clips whose voice and face lie further apart than 1.5."""
    nearer_face: float
    """Of these, the share in which both is nearer to face than to voice."""
    to_voice: float
    """Of these, the mean distance from both to voice."""
    to_face: float


def weighing(path: Path) -> Weighing:
    """Read `tabulatedVotes.csv` of CREMA-D and return how people weigh.

    Raises:
        DataError: If the file cannot be used.
    """
    voice, face, both = _sentiments(path)
    inputs = np.stack([voice, face, np.ones_like(voice)], axis=1)
    weights = np.linalg.lstsq(inputs, both, rcond=None)[0]
    # Rounded, so that what lies at the limit is on the same side on every machine.
    apart = np.abs(voice - face).round(9) > APART
    to_voice, to_face = np.abs(both - voice)[apart], np.abs(both - face)[apart]
    return Weighing(
        len(both),
        float(weights[0]),
        float(weights[1]),
        float(1 - np.var(both - inputs @ weights) / np.var(both)),
        int(apart.sum()),
        float((to_face < to_voice).mean()),
        float(to_voice.mean()),
        float(to_face.mean()),
    )


def _sentiments(path: Path) -> npt.NDArray[np.float64]:
    """Return (3, N): mean sentiment of the votes on voice, face and both, of each clip."""
    found: dict[str, dict[str, float]] = {kind: {} for kind in KINDS}
    try:
        for _, row in csv_rows(path):
            counts = {emotion: float(row[emotion]) for emotion in VALENCE}
            if total := sum(counts.values()):
                mean = sum(VALENCE[e] * n for e, n in counts.items()) / total
                found[row[""][0]][row["fileName"]] = mean
    except (LookupError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read as CREMA-D's tabulatedVotes.csv: {error!r}"
        ) from error
    clips = sorted(set.intersection(*(set(votes) for votes in found.values())))
    if not clips:
        raise DataError(f"{path} has no clip with votes on voice, face and both: use another file")
    return np.array([[found[kind][clip] for clip in clips] for kind in KINDS])
