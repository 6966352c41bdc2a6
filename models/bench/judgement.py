"""How people judge a clip of which they know words, voice and face: a law, from their labels.

Knows a CSV with people's labels of a clip and of each of its modalities. Knows no model.

Shapes: R clips of the CSV, B any clips, M = 3 modalities (text, audio, vision).
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..data.clips import HUMAN, DataError, read_labelled
from ..nn.tam_ulag import LIMIT, MODALITIES


class Law(NamedTuple):
    """Sentiment of a clip = the weighted sum of that of its modalities, each judged alone."""

    weights: tuple[float, float, float]
    """By least squares, without a constant."""
    fit: float
    """Correlation of the sum with the clip's label, on the clips that it was fitted on."""
    clips: int

    def of(self, labels_BM: Tensor, present_M: Tensor) -> Tensor:
        """Return the sentiment (B,) in [-3, 3] that people would give to the present modalities.

        Nobody has labelled two of three, so their weights keep their ratio and the sum of all
        three: in CREMA-D's votes on voice and face together it is about the same. A modality that
        is alone has its own label.
        """
        all_M = torch.tensor(self.weights)
        there_M = torch.where(present_M, all_M, 0.0)
        total = all_M.sum() if int(present_M.sum()) > 1 else 1.0
        sentiment = labels_BM @ (there_M / there_M.sum() * total)
        return sentiment.clamp(-LIMIT, LIMIT)


class Judgements(NamedTuple):
    """What people said of clips whose modalities they also judged alone."""

    law: Law
    labels: Tensor
    """(R, M) of each modality in [-3, 3]: which labels come together, and how often."""


def judgements(path: Path) -> Judgements:
    """Read people's labels in [-1, 1], as CH-SIMS has them, and fit the law.

    Args:
        path: CSV with the columns `label`, `label_T`, `label_A` and `label_V`, and `text`.

    Raises:
        DataError: If the file cannot be used, or the labels of its clips determine no law.
    """
    rows = [row for row in read_labelled(path, limit=1.0) if row.unimodal.keys() == HUMAN.keys()]
    labels = torch.tensor([[row.unimodal[name] for name in MODALITIES] for row in rows])
    if len(rows) <= len(MODALITIES) or int(torch.linalg.matrix_rank(labels)) < len(MODALITIES):
        raise DataError(
            f"{path}: {len(rows)} rows with {', '.join(HUMAN.values())} determine no weights: "
            "use CH-SIMS's file"
        )
    whole = torch.tensor([row.label for row in rows])
    weights = torch.linalg.lstsq(labels, whole.unsqueeze(-1)).solution[:, 0]
    fit = torch.corrcoef(torch.stack([labels @ weights, whole]))[0, 1]
    text, audio, vision = weights.tolist()
    return Judgements(Law((text, audio, vision), float(fit), len(rows)), labels * LIMIT)
