"""Means and a product of experts, against what they should be."""

import pytest
import torch

from tamulag.models.bench.fusion_baselines import by_agreement, by_precision, fit, product


def drawn(count: int = 20000) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scores with known errors, and labels of deviation 1."""
    noise = torch.Generator().manual_seed(1)
    label = torch.randn(count, generator=noise)
    scores = torch.tensor([0.5, -1.0, 0.0]) + torch.tensor([1.0, 0.5, 0.8]) * label.unsqueeze(-1)
    errors = torch.tensor([0.5, 1.0, 0.8]) * torch.randn(count, 3, generator=noise)
    return scores + errors, label


def test_errors_are_found() -> None:
    """Offset, slope and deviation of each head."""
    experts = fit(*drawn())
    torch.testing.assert_close(experts.offset, torch.tensor([0.5, -1.0, 0.0]), atol=0.03, rtol=0)
    torch.testing.assert_close(experts.slope, torch.tensor([1.0, 0.5, 0.8]), atol=0.03, rtol=0)
    torch.testing.assert_close(experts.deviation, torch.tensor([0.5, 1.0, 0.8]), atol=0.03, rtol=0)


@pytest.mark.parametrize("present", [[1, 0, 0], [1, 0, 1], [1, 1, 1]])
def test_product_is_the_best_linear_estimate(present: list[int]) -> None:
    """Where errors are independent, least squares on the present scores can do no better."""
    scores, label = drawn()
    there = torch.tensor(present, dtype=torch.bool)
    found = product(fit(scores, label), scores, there)
    inputs = torch.cat([scores[:, there], torch.ones(len(label), 1)], dim=1)
    best = inputs @ torch.linalg.lstsq(inputs, label.unsqueeze(-1)).solution
    errors = [(x - label).square().mean().item() for x in (found, best[:, 0])]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)


def test_absent_modalities_do_not_count() -> None:
    """Whatever stands there."""
    scores, label = drawn(50)
    there = torch.tensor([True, False, True])
    changed = scores.clone()
    changed[:, 1] = 99.0
    experts = fit(scores, label)
    assert torch.equal(product(experts, scores, there), product(experts, changed, there))


def test_precision_trusts_who_errs_least() -> None:
    """Text errs by .71 in all, voice by 1.5, face by .82: an offset counts as an error here."""
    weights = by_precision(fit(*drawn()))
    assert weights[0] > weights[2] > weights[1]


def test_people_trust_the_face_more_than_the_voice() -> None:
    """By CREMA-D: (.690 - 1/6) to (.455 - 1/6), text between them."""
    text, voice, face = by_agreement().tolist()
    assert face / voice == pytest.approx(1.815, abs=1e-3)
    assert voice < text < face
