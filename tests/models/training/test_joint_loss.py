"""Generated labels keep their bounds, and the joint loss reaches every parameter."""

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from support.model_contract import ends, stream
from tamulag.models import TamUlag
from tamulag.models.nn.config import preset
from tamulag.models.nn.ulag import Similarity, Ulag
from tamulag.models.training.joint_loss import joint_loss, unimodal_targets

SIZES, EXPERT = (6, 5, 3, 4), 4
FORMS: tuple[Similarity, ...] = get_args(Similarity)
every_form = pytest.mark.parametrize("similarity", FORMS)
LABEL = torch.tensor([1.5, -2.0, 0.0])
ALL = torch.ones(3, 3, dtype=torch.bool)


def ulag(similarity: Similarity = "dot") -> Ulag:
    torch.manual_seed(0)
    return Ulag(sizes=SIZES, expert=EXPERT, similarity=similarity)


def features(batch: int = 3, scale: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [scale * torch.randn(batch, size, generator=generator).relu() for size in SIZES]


@given(
    st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=6),
    st.sampled_from(FORMS),
    st.sampled_from([0.0, 1.0, 1e4]),
)
@settings(max_examples=40)
def test_generated_label_is_never_larger(
    labels: list[float], similarity: Similarity, scale: float
) -> None:
    """|y_s| <= |y|, whatever the representations are; neutral stays neutral."""
    label = torch.tensor(labels)
    present = torch.ones(len(labels), 3, dtype=torch.bool)
    generated = ulag(similarity)(features(len(labels), scale), label, present)
    assert (generated.abs() <= label.abs().unsqueeze(-1)).all()


@every_form
def test_generated_label_follows_the_equation(similarity: Similarity) -> None:
    """Written out for each clip and modality."""
    layer, four = ulag(similarity), features()
    generated = layer(four, LABEL, ALL)
    for row in range(3):
        e = [torch.relu(w(f[row])) for w, f in zip(layer.experts, four, strict=True)]
        for s in range(3):
            r = torch.stack([k @ e[s + 1] for k in e])
            if similarity == "cosine":
                r = torch.stack([k @ e[s + 1] / (k.norm() * e[s + 1].norm()) for k in e])
            if similarity == "softmax":
                r = r.softmax(dim=0)
            g = sum(r_k * k for r_k, k in zip(r, e, strict=True))
            expected = (2 * torch.sigmoid(layer.confidence[s](g)) - 1) * LABEL[row]
            torch.testing.assert_close(generated[row, s], expected[0])


@every_form
def test_absent_modality_takes_no_part(similarity: Similarity) -> None:
    """What stands in for it changes nothing, NaN included; its own label is the clip's."""
    present = torch.tensor([[True, False, True]]).expand(3, 3)
    layer, four, spoilt = ulag(similarity), features(), features()
    spoilt[2] = torch.full_like(spoilt[2], torch.nan)
    generated = layer(spoilt, LABEL, present)
    assert torch.equal(generated, layer(four, LABEL, present))
    assert torch.equal(generated[:, 1], LABEL)


@every_form
def test_clip_does_not_see_its_neighbours(similarity: Similarity) -> None:
    """A batch of one gives the label that it gives in any batch."""
    layer, four = ulag(similarity), features()
    together = layer(four, LABEL, ALL)
    for row in range(3):
        part = slice(row, row + 1)
        alone = layer([f[part] for f in four], LABEL[part], ALL[part])
        torch.testing.assert_close(alone, together[part])


@every_form
def test_silent_experts_give_no_nan(similarity: Similarity) -> None:
    """Representations of zero have no direction; labels and gradients stay finite."""
    layer = ulag(similarity)
    for expert in layer.experts:
        assert isinstance(expert, nn.Linear)
        nn.init.constant_(expert.bias, -1.0)
    generated = layer(features(scale=0.0), LABEL, ALL)
    gradients = torch.autograd.grad(generated.sum(), list(layer.parameters()))
    assert all(torch.isfinite(part).all() for part in (generated, *gradients))


@pytest.mark.parametrize(
    ("gradient", "reaches_features", "reaches_layers"),
    [("full", True, True), ("experts", False, True), ("none", False, False)],
)
def test_gradient_reaches_as_far_as_it_is_let(
    gradient: str, reaches_features: bool, reaches_layers: bool
) -> None:
    """The release lets it into the representations; the other two keep targets from moving them."""
    layer, four = ulag(), [f.requires_grad_() for f in features()]
    generated = layer(four, LABEL, ALL, gradient)
    assert generated.requires_grad == reaches_layers
    if reaches_layers:
        generated.sum().backward()
    assert all((f.grad is not None) == reaches_features for f in four)


def test_without_labels_the_target_is_the_clips_and_weighs_nothing() -> None:
    """`none`: a copy of the multimodal label."""
    target, weight = unimodal_targets(LABEL)
    assert torch.equal(target, LABEL.unsqueeze(-1).expand(3, 3))
    assert not weight.any()


def test_both_labels_are_averaged_and_weighed_by_ulgm() -> None:
    """y* = (y^ULGM + y^ULAG) / 2 with tanh |y^ULGM - y|."""
    ulgm, made = torch.full((3, 3), 1.0), torch.full((3, 3), -0.5)
    target, weight = unimodal_targets(LABEL, ulgm_BM=ulgm, ulag_BM=made)
    assert target.unique().tolist() == [0.25]
    torch.testing.assert_close(weight, torch.tanh((1 - LABEL).abs()).unsqueeze(-1).expand(3, 3))


@pytest.mark.parametrize("kind", ["ulgm_BM", "ulag_BM"])
def test_one_label_alone_is_target_and_weight(kind: str) -> None:
    """Nothing is averaged with what was not made."""
    made = torch.full((3, 3), 0.5, requires_grad=True)
    only = {kind: made}
    target, weight = unimodal_targets(
        LABEL, ulgm_BM=only.get("ulgm_BM"), ulag_BM=only.get("ulag_BM")
    )
    assert torch.equal(target, made)
    torch.testing.assert_close(weight[:, 0], torch.tanh((0.5 - LABEL).abs()))
    assert not weight.requires_grad


def test_weight_can_come_from_the_target_and_have_a_floor() -> None:
    """Both are choices beside the release's."""
    ulgm, made = LABEL.unsqueeze(-1).expand(3, 3), torch.zeros(3, 3)
    _, weight = unimodal_targets(LABEL, ulgm_BM=ulgm, ulag_BM=made, weigh="target")
    torch.testing.assert_close(weight[:, 0], torch.tanh(LABEL.abs() / 2))
    _, weight = unimodal_targets(LABEL, ulgm_BM=ulgm, ulag_BM=made, floor=0.3)
    torch.testing.assert_close(weight, torch.full((3, 3), 0.3))


def test_joint_loss_follows_the_equation() -> None:
    """An absent modality counts in B and adds nothing, NaN included."""
    sentiment, label = torch.tensor([1.0, -1.0]), torch.tensor([2.0, -1.5])
    heads = torch.tensor([[1.0, 0.0, torch.nan], [0.0, -1.0, 2.0]])
    present = torch.tensor([[True, True, False], [True, True, True]])
    ulgm = torch.tensor([[1.0, 2.0, 0.0], [-1.5, 0.5, 1.5]])
    loss = joint_loss(sentiment, heads, label, unimodal_targets(label, ulgm_BM=ulgm), present)
    w = torch.tanh((ulgm - label.unsqueeze(-1)).abs())
    expected = torch.stack([0 * w[0, 0], w[1, 1] * 1.5, w[1, 2] * 0.5]) / 2
    torch.testing.assert_close(loss.unimodal, expected)
    torch.testing.assert_close(loss.fused, torch.tensor(0.75))
    torch.testing.assert_close(loss.total, loss.fused + expected.sum())


def test_gradient_reaches_every_parameter_of_the_papers_model() -> None:
    """LSTMs, gates, projections, heads, experts and confidence nets: the release forgets some."""
    torch.manual_seed(0)
    model = TamUlag(preset("paper", dims={"text": 24})).train()
    assert model.ulag is not None
    x = stream(model)
    output = model.forward(x, ends(x)[:, -1:])
    four, present = [f[:, -1] for f in output.features], output.present[:, -1]
    made = model.ulag(four, LABEL, present)
    ulgm = made.detach() + torch.tensor([0.7, -0.4, 0.2])
    targets = unimodal_targets(LABEL, ulgm_BM=ulgm, ulag_BM=made)
    heads, sentiment = output.heads[:, -1], output.sentiment[:, -1]
    joint_loss(sentiment, heads, LABEL, targets, present).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
        assert torch.isfinite(parameter.grad).all(), name
