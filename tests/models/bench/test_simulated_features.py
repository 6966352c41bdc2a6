"""Simulated features carry as much of the label as is stated, and no more."""

import numpy as np
import pytest

from tamulag.models.bench.simulated_features import DIMS, simulated
from tamulag.models.data.clips import Clip


def labelled(count: int = 5000) -> list[Clip]:
    """Return clips of text with human labels of voice and face."""
    labels = np.random.default_rng(2).uniform(-1, 1, (count, 2))
    text = {"text": np.zeros((1, 3), np.float32)}
    ticks = {"text": np.zeros(1, np.int64)}
    return [Clip(0.0, "", text, ticks, {"audio": a, "vision": v}) for a, v in labels.tolist()]


@pytest.mark.parametrize(("snr", "wanted"), [(0.0, 0.71), (10.0, 0.95)])
@pytest.mark.parametrize("name", DIMS)
def test_no_more_is_known_than_is_stated(name: str, snr: float, wanted: float) -> None:
    """What all values share is the label with that much noise."""
    clips = simulated(labelled(), snr, np.random.default_rng(1))
    values = np.stack([clip.values[name].mean(axis=0) for clip in clips])
    label = np.array([clip.unimodal[name] for clip in clips])
    shared = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)[0][:, 0]
    found = abs(np.corrcoef(shared, label)[0, 1])
    assert found == pytest.approx(wanted, abs=0.02)


def test_text_and_labels_stay() -> None:
    """The simulation adds; it changes nothing."""
    before = labelled(3)
    after = simulated(before, 0.0, np.random.default_rng(1))
    assert [c.unimodal for c in after] == [c.unimodal for c in before]
    assert all(c.values["text"] is b.values["text"] for c, b in zip(after, before, strict=True))
