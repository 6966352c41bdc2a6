"""The fusion works with whatever is there, and an absent modality does not count."""

from itertools import combinations
from typing import get_args

import pytest
import torch
from torch import Tensor

from tamulag.models.nn.fusion import Fusion, SemanticFusion

HIDDEN, SEMANTIC = (2, 3, 4), 5
SUBSETS = [s for size in (1, 2, 3) for s in combinations(range(3), size)]
PAIRS = list(combinations(range(3), 2))
FORMS: tuple[Fusion, ...] = get_args(Fusion)
every_form = pytest.mark.parametrize("kind", FORMS)


def fusion(kind: Fusion = "hadamard") -> SemanticFusion:
    torch.manual_seed(0)
    return SemanticFusion(hidden=HIDDEN, semantic=SEMANTIC, kind=kind)


def contexts(seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 1, size, generator=generator) for size in HIDDEN]


def flags(subset: tuple[int, ...]) -> Tensor:
    return torch.tensor([index in subset for index in range(3)]).expand(2, 1, 3)


def parts(fused: Tensor) -> Tensor:
    """Return the three weighted features and the three pairs, (6, K), of the first row."""
    return fused[0, 0, :-3].view(6, SEMANTIC)


@every_form
@pytest.mark.parametrize("subset", SUBSETS, ids=str)
def test_weights_of_the_present_modalities_sum_to_one(
    subset: tuple[int, ...], kind: Fusion
) -> None:
    """Any subset works; an absent modality has weight 0."""
    _, weight = fusion(kind)(contexts(), flags(subset))
    torch.testing.assert_close(weight.sum(dim=-1), torch.ones(2, 1))
    assert ((weight > 0) == flags(subset)).all()


@every_form
def test_nothing_present_gives_zeros(kind: Fusion) -> None:
    """An empty room is a vector of zeros with weights of zero, not NaN."""
    fused, weight = fusion(kind)(contexts(), flags(()))
    assert not fused.any()
    assert not weight.any()


def spoilt(subset: tuple[int, ...]) -> list[Tensor]:
    """Return contexts that are NaN where absent."""
    clean = contexts()
    return [c if i in subset else torch.full_like(c, torch.nan) for i, c in enumerate(clean)]


@every_form
@pytest.mark.parametrize("subset", SUBSETS[:-1], ids=str)
def test_context_of_an_absent_modality_does_not_matter(
    subset: tuple[int, ...], kind: Fusion
) -> None:
    """NaN where a modality is absent changes no bit of the vector or the weights."""
    layer = fusion(kind)
    for dirty, clean in zip(
        layer(spoilt(subset), flags(subset)), layer(contexts(), flags(subset)), strict=True
    ):
        assert torch.equal(dirty, clean)


@pytest.mark.parametrize("kind", ["hadamard", "both"])
@pytest.mark.parametrize("subset", [(), (0,), (1, 2)], ids=str)
def test_nan_of_an_absent_modality_reaches_no_gradient(
    subset: tuple[int, ...], kind: Fusion
) -> None:
    """A context is cleared before the layers, so a batch with one absent row can be learnt from."""
    layer = fusion(kind)
    fused, weight = layer(spoilt(subset), flags(subset))
    loss = fused.square().sum() + weight.square().sum()
    for gradient in torch.autograd.grad(loss, list(layer.parameters())):
        assert torch.isfinite(gradient).all()


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


@every_form
def test_size_is_the_length_of_the_fused_vector(kind: Fusion) -> None:
    """The head behind it can be built from `size`."""
    layer = fusion(kind)
    assert layer(contexts(), flags((0,)))[0].shape == (2, 1, layer.size)


def test_concatenation_is_the_vectors_and_the_flags() -> None:
    """An absent modality is zeros."""
    text, _, vision = contexts()
    fused, _ = fusion("concat")(contexts(), flags((0, 2)))
    audio, there = torch.zeros(2, 1, 3), torch.tensor([1.0, 0, 1]).expand(2, 1, 3)
    assert torch.equal(fused, torch.cat([text, audio, vision, there], dim=-1))


def test_cross_sums_are_outer_products_summed_over_either_index() -> None:
    """TA, AT, TV, VT, AV, VA, as the release forms them."""
    fused, _ = fusion("cross_sum")(contexts(), flags((0, 1, 2)))
    t, a, v = (c[0, 0] for c in contexts())
    terms = [t, a, v]
    for one, other in ((t, a), (t, v), (a, v)):
        outer = torch.outer(one, other)
        terms += [outer.sum(dim=1), outer.sum(dim=0)]
    torch.testing.assert_close(fused[0, 0], torch.cat([*terms, torch.ones(3)]))


def test_both_is_cross_sums_and_then_hadamard() -> None:
    """The flags stand once, at the end; the weights are those of the gate."""
    fused, weight = fusion("both")(contexts(), flags((0, 1)))
    cross, _ = fusion("cross_sum")(contexts(), flags((0, 1)))
    gated, expected = fusion("hadamard")(contexts(), flags((0, 1)))
    assert torch.equal(fused, torch.cat([cross[..., :-3], gated], dim=-1))
    assert torch.equal(weight, expected)


@pytest.mark.parametrize("kind", ["concat", "cross_sum"])
def test_fusion_without_a_gate_shares_equally(kind: Fusion) -> None:
    """Its weights show only which modalities are there."""
    _, weight = fusion(kind)(contexts(), flags((1, 2)))
    assert weight[0, 0].tolist() == [0, 0.5, 0.5]


@every_form
def test_rows_may_have_different_modalities(kind: Fusion) -> None:
    """Presence belongs to a row and a hop, not to the batch."""
    present = torch.tensor([[[True, False, True]], [[False, True, False]]])
    fused, weight = fusion(kind)(contexts(), present)
    for row in range(2):
        alone = fusion(kind)([c[[row]] for c in contexts()], present[[row]])
        torch.testing.assert_close(fused[[row]], alone[0])
        torch.testing.assert_close(weight[[row]], alone[1])
