"""Clips with human labels of each modality, of which the text shows its own."""

import numpy as np

from tamulag.models.data.clips import Clip


def clips(seed: int, count: int = 40) -> list[Clip]:
    """Return clips whose text shows its human label, and whose label is the mean of all three."""
    rng = np.random.default_rng(seed)
    out = list[Clip]()
    for _ in range(count):
        human = dict(zip(("text", "audio", "vision"), rng.uniform(-1, 1, 3).tolist(), strict=True))
        values = rng.standard_normal((4, 6)).astype(np.float32) * 0.1 + np.float32(human["text"])
        label = float(np.mean(list(human.values())))
        out.append(
            Clip(
                label, f"v{len(out) % 10}", {"text": values}, {"text": np.zeros(4, np.int64)}, human
            )
        )
    return out
