"""Pairs of clips with nearly equal labels."""

import numpy as np
import pytest
import torch

from tamulag.models import MODALITIES
from tamulag.models.pairing import FusionRecipe, Vectors, paired


def labelled(labels: torch.Tensor) -> Vectors:
    """Return vectors that are their own label, so that one can see which were drawn."""
    return Vectors(labels.unsqueeze(-1), labels)


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
