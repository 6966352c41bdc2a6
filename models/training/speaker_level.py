"""The running level of a session in which a speaker has already spoken, for training.

Knows clips and the level of the encoder's state. Knows no hidden state and no loss.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..nn.encoder import Encoder

EARLIER = (0, 0, 1, 2, 4, 8)
"""How many other clips of its speaker come before a clip in training, each as likely."""


class SpeakerLevels:
    """Levels after other clips of the same group, without running the encoder over them.

    A clip of n ticks turns a level S into d^n S + s: d^n and s are worked out once per clip.

    Args:
        encoder: With its `centred` features; its level is set.
        clips: Vectors (T, D) of each clip.
        groups: Speaker of each.
    """

    def __init__(self, encoder: Encoder, clips: Sequence[Tensor], groups: Sequence[str]) -> None:
        nothing = torch.zeros(1, encoder.centred + 1, dtype=torch.float64)
        self.clip = torch.cat([encoder.centre(v[None], nothing)[1] for v in clips])
        lengths = torch.tensor([len(v) for v in clips], dtype=torch.float64)
        self.fade = (1 - 1 / encoder.horizon) ** lengths
        names = np.array(groups)
        self.members = {group: np.flatnonzero(names == group) for group in set(groups)}
        self.groups = groups
        self.start = encoder.initial_state(1).level[0]

    def levels(self, chosen: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Return for each chosen clip the level after other clips of its group, drawn at random.

        Args:
            chosen: (B,) indices of clips.
            counts: (B,) how many others; fewer where the group has fewer.
            rng: Draws them.

        Returns:
            (B, C + 1) float64, as in `EncoderState.level`.
        """
        return torch.stack(
            [self._level(int(i), int(n), rng) for i, n in zip(chosen, counts, strict=True)]
        )

    def _level(self, index: int, count: int, rng: np.random.Generator) -> Tensor:
        others = self.members[self.groups[index]]
        others = others[others != index]
        level = self.start
        for other in rng.permutation(others)[:count]:
            level = self.fade[other] * level + self.clip[other]
        return level
