"""What is said of a group of clips: figures by hand, and intervals over people."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tamulag.models import TamUlag
from tamulag.models.data.clips import Clip
from tamulag.models.evaluation.evaluate import estimates
from tamulag.models.evaluation.validity import agreements
from tamulag.models.runtime.card import Card

CARD = Card(
    trained={"sentiment": True, "text": False, "audio": True, "vision": False},
    interval={"audio": 6.0},
)


def clips(labels: list[float], people: list[str]) -> list[Clip]:
    rng = np.random.default_rng(0)
    return [
        Clip(
            label,
            person,
            {"audio": rng.standard_normal((30, 4)).astype(np.float32)},
            {"audio": np.arange(30)},
        )
        for label, person in zip(labels, people, strict=True)
    ]


def test_trained_heads_with_something_to_score_are_compared(model: TamUlag) -> None:
    """The figures are those of the estimates; a head without training is left out."""
    made = clips([1.0, -1.0, 0.0, 2.0], ["a", "a", "b", "b"])
    found = agreements(model, CARD, made)
    assert [(one.head, one.n) for one in found] == [("audio", 4), ("all", 4)]
    scores, _ = estimates(model, made, "audio")
    label = np.array([1.0, -1.0, 0.0, 2.0])
    figures = found[0].figures
    assert figures["MAE"] == pytest.approx(np.abs(scores - label).mean(), abs=1e-6)
    assert figures["bias"] == pytest.approx((scores - label).mean(), abs=1e-6)
    assert figures["Corr"] == pytest.approx(np.corrcoef(scores, label)[0, 1], abs=1e-5)
    assert figures["sign"] == pytest.approx((scores * label > 0)[[0, 1, 3]].mean())
    assert figures["covered"] == 1.0


def test_the_interval_is_over_people(model: TamUlag) -> None:
    """Of two people each figure lies between that of the one and that of the other."""
    made = clips([0.0, 0.0, 0.0, 0.0], ["a", "a", "b", "b"])
    both = agreements(model, CARD, made)[0]
    alone = [
        agreements(model, CARD, [clip for clip in made if clip.group == person])[0]
        for person in "ab"
    ]
    means = sorted(one.figures["mean"] for one in alone)
    assert both.intervals["mean"] == pytest.approx(means, abs=1e-6)
    assert all(np.isnan(one.intervals["mean"][0]) for one in alone)
    assert np.isnan(both.figures["Corr"])
    assert np.isnan(both.figures["sign"])


def test_without_an_interval_nothing_is_covered(model: TamUlag) -> None:
    """NaN, not 0: nothing was stated."""
    torch.manual_seed(0)
    found = agreements(model, replace(CARD, interval={}), clips([1.0], ["a"]))
    assert np.isnan(found[0].figures["covered"])
