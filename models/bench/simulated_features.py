"""Voice and face features that do not exist, SIMULATED from human labels at a stated noise.

For comparisons alone: CH-SIMS has human labels of voice and face but no features that could be had.
Figures with these show how a method behaves if features were so; nothing of real voices or faces.
Knows labels. Knows no model.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..data.clips import Clip
from ..nn.constants import VISION_TICKS

DIMS = {"audio": 33, "vision": 32}
STEPS = 10
"""Vectors per clip and modality."""


def simulated(clips: Sequence[Clip], snr: float, rng: np.random.Generator) -> list[Clip]:
    """Return clips with simulated audio and vision beside what they have.

    x_i,t = u (y_i + n_i) / s + e_i,t; u is a random direction of length sqrt(D), y_i the human
    label of that modality alone, s the deviation of y over the clips. n_i, one draw per clip, has
    the variance s^2 / 10^(snr / 10): no training can remove it, so features at 0 dB correlate with
    the label by .71 at best, at 10 dB by .95. e_i,t is noise of deviation 1 in every value, most
    of which averages out.

    Args:
        clips: With the human labels of audio and vision.
        snr: Signal to noise of a clip in dB.
        rng: Draws the direction and the noise.
    """
    out = list(clips)
    for name, dim in DIMS.items():
        label = np.array([clip.unimodal[name] for clip in clips])
        values = _features(label, dim, snr, rng)
        ticks = np.arange(STEPS, dtype=np.int64) * VISION_TICKS
        out = [
            replace(clip, values=clip.values | {name: x}, ticks=clip.ticks | {name: ticks})
            for clip, x in zip(out, values, strict=True)
        ]
    return out


def _features(
    label: npt.NDArray[np.float64], dim: int, snr: float, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    direction = rng.standard_normal(dim)
    direction *= np.sqrt(dim) / np.linalg.norm(direction)
    spread = label.std()
    seen = label + rng.normal(0, spread * 10 ** (-snr / 20), len(label))
    clean = (seen / spread)[:, None, None] * direction
    noise = rng.standard_normal((len(label), STEPS, dim))
    return np.asarray(clean + noise, np.float32)
