"""How people weigh voice and face: the votes of CREMA-D on voice alone, face alone and both.

Knows the table of votes. Knows no model.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

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


class Votes(NamedTuple):
    """Mean sentiment of the votes on each clip, (N,) float64."""

    voice: Tensor
    face: Tensor
    both: Tensor

    def weighing(self) -> Weighing:
        """Return how people weigh."""
        inputs = torch.stack([self.voice, self.face, torch.ones_like(self.voice)], dim=1)
        weights = torch.linalg.lstsq(inputs, self.both.unsqueeze(-1)).solution[:, 0]
        apart, to_voice, to_face = self._conflicts()
        return Weighing(
            len(self.both),
            float(weights[0]),
            float(weights[1]),
            float(1 - (self.both - inputs @ weights).var() / self.both.var()),
            int(apart.sum()),
            float((to_face < to_voice)[apart].double().mean()),
            float(to_voice[apart].mean()),
            float(to_face[apart].mean()),
        )

    def labels(self) -> Tensor:
        """Return voice and face, (N, 2) float32."""
        return torch.stack([self.voice, self.face], dim=1).float()

    def face_decides(self, side: float) -> Tensor:
        """Return which clips (N,) are a conflict that people decide by the face.

        Args:
            side: Only those in which one is at least so negative and the other so positive.
        """
        apart, to_voice, to_face = self._conflicts()
        opposite = self.voice * self.face < 0
        clear = torch.minimum(self.voice.abs(), self.face.abs()) >= side
        return apart & opposite & clear & (to_face < to_voice)

    def _conflicts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return which clips are one, and how far both together is from voice and from face."""
        # Rounded, so that what lies at the limit is on the same side on every machine.
        apart = (self.voice - self.face).abs().round(decimals=9) > APART
        return apart, (self.both - self.voice).abs(), (self.both - self.face).abs()


def read_votes(path: Path) -> Votes:
    """Read `tabulatedVotes.csv` of CREMA-D.

    Raises:
        DataError: If the file cannot be used.
    """
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
    means = np.array([[found[kind][clip] for clip in clips] for kind in KINDS])
    return Votes(*torch.from_numpy(means))
