"""Pairs of clips with nearly equal labels."""

import numpy as np
import pytest
import torch

from tamulag.models import MODALITIES, TamUlag
from tamulag.models.evaluation.conformal import STEPS
from tamulag.models.training.heads_recipe import FusionRecipe
from tamulag.models.training.train_fusion import (
    PrefixVectors,
    Vectors,
    fused,
    halves,
    intervals,
    paired,
)


def labelled(labels: torch.Tensor) -> Vectors:
    """Return vectors that are their own label, so that one can see which were drawn."""
    return Vectors(labels.unsqueeze(-1), labels, torch.zeros(len(labels), dtype=torch.int64))


@pytest.mark.parametrize("near", [0.2, 0.4])
def test_pairs_have_nearly_equal_labels(near: float) -> None:
    """Clips are paired by label, and the fused label is the mean of the three."""
    clips = {name: labelled(torch.linspace(-3, 3, 61)) for name in MODALITIES}
    recipe = FusionRecipe(batch=500, near=near)
    vectors, label = paired(clips, recipe, np.random.default_rng(0))
    drawn = torch.cat([vectors[name] for name in MODALITIES], dim=1)
    assert (drawn.amax(dim=1) - drawn.amin(dim=1)).max() <= 2 * near + 1e-5
    torch.testing.assert_close(label, drawn.mean(dim=1))
    assert len(vectors["text"].unique()) > 50


def test_where_nothing_is_near_a_neighbour_is_taken() -> None:
    """Labels with gaps, as of acted emotions, still find a partner: the next on either side."""
    clips = {name: labelled(torch.linspace(-3, 3, 61)) for name in MODALITIES}
    clips["audio"] = labelled(torch.tensor([-2.0, 0.0, 2.0]))
    vectors, _ = paired(clips, FusionRecipe(batch=500, near=0.1), np.random.default_rng(0))
    assert set(vectors["audio"].flatten().tolist()) == {-2.0, 0.0, 2.0}
    assert (vectors["audio"] - vectors["text"]).abs().max() <= 2.2


def prefixes(model: TamUlag, name: str, count: int, off: float) -> PrefixVectors:
    """Return whole clips whose labels lie `off` above the fused head's estimate of them alone."""
    context = torch.randn(count, getattr(model, name).size)
    present = torch.tensor([other == name for other in MODALITIES]).expand(count, -1)
    with torch.inference_mode():
        label = fused(model, {name: context}, present) + off
    place = torch.arange(count)
    steps = torch.full((count,), STEPS[name][-1])
    return PrefixVectors(context, label, place, steps, torch.zeros_like(place))


def test_one_modality_is_compared_with_its_own_labels(model: TamUlag) -> None:
    """Not with those of the clips that it is paired with."""
    off = {"text": 0.25, "audio": 0.5, "vision": 1.0}
    clips = {name: prefixes(model, name, 50, off[name]) for name in MODALITIES}
    found = intervals(model, clips, FusionRecipe(), np.random.default_rng(0))
    assert {name: found.interval[name] for name in MODALITIES} == pytest.approx(off, abs=1e-3)


def test_a_pair_is_compared_with_its_two_labels(model: TamUlag) -> None:
    """What a modality that is absent from a set is labelled changes nothing of the set."""
    clips = {name: prefixes(model, name, 50, 0.0) for name in MODALITIES}
    other = clips | {"vision": prefixes(model, "vision", 50, 2.0)}
    one, two = (
        intervals(model, made, FusionRecipe(), np.random.default_rng(0)) for made in (clips, other)
    )
    assert one.interval["vision"] < two.interval["vision"]
    assert one.interval["audio"] == two.interval["audio"]
    assert one.interval["text+audio"] == pytest.approx(two.interval["text+audio"], rel=0.1)


def test_n_is_that_of_distinct_clips(model: TamUlag) -> None:
    """Thousands of pairs of 20 voices are 20 voices."""
    clips = {"text": prefixes(model, "text", 300, 0.5), "audio": prefixes(model, "audio", 20, 0.5)}
    found = intervals(model, clips, FusionRecipe(), np.random.default_rng(0))
    assert found.clips["text"][-1] == 300
    assert found.clips["audio"][-1] == found.clips["text+audio"][-1] == 20


def test_no_person_trains_and_calibrates() -> None:
    """Of four parts two are of each half."""
    labels = torch.arange(8.0)
    part = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])
    trained, left = halves(Vectors(labels.unsqueeze(-1), labels, part))
    assert trained.label.tolist() == [0, 1, 6, 7]
    assert left.label.tolist() == [2, 3, 4, 5]
    assert left.context[:, 0].tolist() == left.label.tolist()
