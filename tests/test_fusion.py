"""The fusion works with whatever is there, and an absent modality says nothing."""

from itertools import combinations

import pytest
import torch
from torch import Tensor

from tamulag.models.fusion import SemanticFusion

HIDDEN, SEMANTIC = (2, 3, 4), 5
SUBSETS = [s for size in (1, 2, 3) for s in combinations(range(3), size)]
PAIRS = list(combinations(range(3), 2))


def fusion() -> SemanticFusion:
    torch.manual_seed(0)
    return SemanticFusion(hidden=HIDDEN, semantic=SEMANTIC)


def contexts(seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 1, size, generator=generator) for size in HIDDEN]


def flags(subset: tuple[int, ...]) -> Tensor:
    return torch.tensor([index in subset for index in range(3)]).expand(2, 1, 3)


def parts(fused: Tensor) -> Tensor:
    """Return the three weighted features and the three pairs, (6, K), of the first row."""
    return fused[0, 0, :-3].view(6, SEMANTIC)


@pytest.mark.parametrize("subset", SUBSETS, ids=str)
def test_weights_of_the_present_modalities_sum_to_one(subset: tuple[int, ...]) -> None:
    """Any subset works; an absent modality has weight 0."""
    _, weight = fusion()(contexts(), flags(subset))
    torch.testing.assert_close(weight.sum(dim=-1), torch.ones(2, 1))
    assert ((weight > 0) == flags(subset)).all()


def test_nothing_present_gives_zeros() -> None:
    """An empty room is a vector of zeros with weights of zero, not NaN."""
    fused, weight = fusion()(contexts(), flags(()))
    assert not fused.any()
    assert not weight.any()


@pytest.mark.parametrize("subset", SUBSETS[:-1], ids=str)
def test_context_of_an_absent_modality_does_not_matter(subset: tuple[int, ...]) -> None:
    """NaN where a modality is absent changes no bit of the vector or the weights."""
    spoilt = contexts()
    for index in set(range(3)) - set(subset):
        spoilt[index] = torch.full_like(spoilt[index], torch.nan)
    for dirty, clean in zip(
        fusion()(spoilt, flags(subset)), fusion()(contexts(), flags(subset)), strict=True
    ):
        assert torch.equal(dirty, clean)


@pytest.mark.parametrize("subset", SUBSETS, ids=str)
def test_terms_with_an_absent_modality_vanish(subset: tuple[int, ...]) -> None:
    """A feature needs its modality and a pair needs both."""
    terms = parts(fusion()(contexts(), flags(subset))[0])
    there = [index in subset for index in range(3)]
    there += [i in subset and j in subset for i, j in PAIRS]
    assert terms.any(dim=-1).tolist() == there


def test_fused_vector_follows_the_equation() -> None:
    """Weighted features, then products per dimension, then the flags."""
    layer, c = fusion(), contexts()
    fused, weight = layer(c, flags((0, 1, 2)))
    features = [torch.tanh(p(x))[0, 0] for p, x in zip(layer.project, c, strict=True)]
    gates = torch.stack([g(x)[0, 0] for g, x in zip(layer.gate, c, strict=True)]).softmax(dim=0)
    expected = [*(gates * torch.stack(features)), *(features[i] * features[j] for i, j in PAIRS)]
    torch.testing.assert_close(parts(fused), torch.stack(expected))
    torch.testing.assert_close(weight[0, 0], gates.mean(dim=-1))
    assert fused[0, 0, -3:].tolist() == [1, 1, 1]


def test_size_is_the_length_of_the_fused_vector() -> None:
    """The head behind it can be built from `size`."""
    layer = fusion()
    assert layer(contexts(), flags((0,)))[0].shape == (2, 1, layer.size)


def test_rows_may_have_different_modalities() -> None:
    """Presence belongs to a row and a hop, not to the batch."""
    present = torch.tensor([[[True, False, True]], [[False, True, False]]])
    fused, weight = fusion()(contexts(), present)
    for row in range(2):
        alone = fusion()([c[[row]] for c in contexts()], present[[row]])
        torch.testing.assert_close(fused[[row]], alone[0])
        torch.testing.assert_close(weight[[row]], alone[1])
