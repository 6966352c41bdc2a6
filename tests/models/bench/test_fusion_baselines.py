"""Means, a product of experts and fitted shares, against what they should be."""

import pytest
import torch

from tamulag.models.bench.fusion_baselines import (
    fit,
    fitted_shares,
    other_ways,
    product,
    regression,
    weighted,
)
from tamulag.models.bench.judgement import Law
from tamulag.models.bench.triples import Triples

ALL, VOICE_FACE = torch.tensor([True, True, True]), torch.tensor([False, True, True])
LAW = Law((0.3, 0.3, 0.5), 1.0, 9)


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


def test_regression_finds_the_factors() -> None:
    """Of what is present; what is absent has none, whatever stands there."""
    scores = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    target = 0.2 * scores[:, 1] + 0.7 * scores[:, 2] - 0.1
    found = regression(scores, target, VOICE_FACE)
    torch.testing.assert_close(found, torch.tensor([0.0, 0.2, 0.7, -0.1]))


def test_a_weighted_mean_leaves_out_who_is_absent() -> None:
    """Weights may differ from clip to clip."""
    scores, weight = torch.tensor([[9.0, 1.0, 2.0]] * 2), torch.tensor([[5.0, 1, 3], [5.0, 1, 0]])
    assert weighted(scores, weight, VOICE_FACE).tolist() == [1.75, 1.0]


def triples(count: int = 400) -> Triples:
    """Return triples whose scores are near the labels; the voice's are noise and say so."""
    noise = torch.Generator().manual_seed(1)
    label = torch.randn(count, 3, generator=noise).clamp(-2, 2)
    score = label + 0.05 * torch.randn(count, 3, generator=noise)
    scale = torch.ones(count, 3)
    score[:, 1] = torch.randn(count, generator=noise)
    scale[:, 1] = 3.0
    person = torch.arange(count).unsqueeze(1).expand(-1, 3)
    return Triples(person, label, person, score, scale)


def test_fitted_shares_leave_the_noise_aside() -> None:
    """And give the face more than the words, as people's law does."""
    text, audio, vision = fitted_shares(triples(), LAW, [ALL], (0.4, 0.4, 0.4)).tolist()
    assert text + audio + vision == pytest.approx(1.0)
    # Its scale divides it by 10, theirs by 2; noise around 0 shrinks the mean, as the law does.
    assert audio / 10 < 0.2 * text / 2
    assert 1.2 < vision / text < 1.8


def test_every_way_on_a_triple() -> None:
    """What does not learn, by hand."""
    ways = other_ways(triples(), LAW, ALL, (0.2, 0.2, 0.4), torch.tensor([0.5, 0.3, 0.2]))
    row = torch.tensor([[1.0, -1.0, 2.0]])
    one = Triples(row.long(), row, row.long(), row, torch.tensor([[1.0, 2.0, 1.0]]))
    found = {name: way(one).item() for name, way in ways.items()}
    assert (found["text"], found["audio"], found["vision"]) == (1.0, -1.0, 2.0)
    assert found["mean"] == pytest.approx(2 / 3)
    assert found["shares"] == pytest.approx(0.8 / 0.8)
    assert found["divided"] == pytest.approx((0.2 - 0.1 + 0.8) / (0.2 + 0.1 + 0.4))
    assert found["scales"] == pytest.approx((1 - 0.25 + 2) / 2.25)
    assert found["law"] == pytest.approx(0.3 - 0.3 + 1.0)
    assert found["fitted"] == pytest.approx((0.25 - 0.06 + 0.2) / 0.41)
    # Only the voice was ever wrong.
    assert found["precision"] == pytest.approx(1.5, abs=0.01)


def test_one_of_two_is_not_shown_without_being_there() -> None:
    """A single modality stands beside the ways only where it is present."""
    ways = other_ways(triples(), LAW, VOICE_FACE, (0.2, 0.2, 0.4), torch.ones(3))
    assert "text" not in ways
    assert {"audio", "vision"} <= ways.keys()
