"""Scales that are fitted: what they learn, of whom, and what they may not do."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from support.learnable_data import quiet
from support.model_contract import tiny
from tamulag.models import MODALITIES, ModelConfig, TamUlag
from tamulag.models.nn.scale import Scales
from tamulag.models.training.train_fusion import PrefixVectors
from tamulag.models.training.train_scales import (
    balance,
    errors,
    fit_scales,
    scaled_intervals,
    scales_of,
    unlikelihood,
)

ROWS = 1200
PLACE = MODALITIES.index("audio")


def scaled() -> tuple[TamUlag, Scales]:
    """Return a model whose scales are as they begin."""
    torch.manual_seed(0)
    model = tiny(ModelConfig(scales=True))
    assert model.scales is not None
    model.scales = Scales(model.scales.sizes)
    return model, model.scales


def laplace(model: TamUlag, scale: Tensor, context: Tensor, steps: Tensor) -> PrefixVectors:
    """Return voices whose scores are off by errors of these scales."""
    generator = np.random.default_rng(0)
    noise = torch.from_numpy(generator.laplace(size=len(scale))).float()
    clip = torch.arange(len(scale))
    rows = PrefixVectors(context, torch.zeros(len(scale)), clip, steps, torch.zeros_like(clip))
    with torch.no_grad():
        score = 3 * torch.tanh(model.audio.head(context)[:, 0] / 3)
    return replace(rows, label=score + scale * noise)


def fitted(
    model: TamUlag, scales: Scales, clips: PrefixVectors, folds: Tensor | None = None
) -> Scales:
    folds = torch.arange(len(clips.label)) % 2 if folds is None else folds
    fit_scales(model, scales, {"audio": clips}, {"audio": folds}, {"audio": clips.context}, quiet)
    return scales


def random_contexts(model: TamUlag) -> Tensor:
    return torch.randn(ROWS, model.audio.size) * torch.linspace(0.1, 2.0, model.audio.size) + 1


def test_it_learns_that_little_was_heard() -> None:
    """Errors that halve from few steps to many; the other heads' scales stay 1."""
    model, scales = scaled()
    steps = torch.tensor([2, 50]).repeat(ROWS // 2)
    clips = laplace(model, 2 / steps.float().sqrt(), random_contexts(model), steps)
    found = scales_of(fitted(model, scales, clips), "audio", clips)
    assert found[steps == 2].median() == pytest.approx(2 / 2**0.5, rel=0.15)
    assert found[steps == 50].median() == pytest.approx(2 / 50**0.5, rel=0.15)
    assert scales.heard[PLACE].item() > 0
    others = scales_of(scales, "text", text_rows(model))
    torch.testing.assert_close(others, torch.ones_like(others))


def text_rows(model: TamUlag) -> PrefixVectors:
    zero = torch.zeros(5, dtype=torch.int64)
    return PrefixVectors(torch.randn(5, model.text.size), torch.zeros(5), zero, zero + 3, zero)


def test_it_learns_what_is_unlike_training() -> None:
    """Contexts far from the middle, in any direction, are further off."""
    model, scales = scaled()
    context = random_contexts(model)
    far = torch.arange(ROWS) % 4 == 0
    context[far] = 1 + 3 * (context[far] - 1)
    scale = torch.where(far, 1.0, 0.3)
    clips = laplace(model, scale, context, torch.full((ROWS,), 10))
    found = scales_of(fitted(model, scales, clips), "audio", clips)
    assert found[far].median() > 1.8 * found[~far].median()
    assert scales.unlike[PLACE].item() > 0


def test_it_learns_in_which_direction_a_head_is_off() -> None:
    """Where that helps people who are not fitted on."""
    model, scales = scaled()
    context = random_contexts(model)
    side = context[:, 0] > context[:, 0].median()
    clips = laplace(model, torch.where(side, 1.2, 0.4), context, torch.full((ROWS,), 10))
    found = scales_of(fitted(model, scales, clips), "audio", clips)
    assert found[side].median() > 1.3 * found[~side].median()


def test_what_does_not_hold_for_other_people_is_not_learned() -> None:
    """A direction in which one half of the people is off, the other half not."""
    model, scales = scaled()
    context, folds = random_contexts(model), torch.arange(ROWS) % 2
    side = (context[:, 0] > context[:, 0].median()) == (folds == 0)
    clips = laplace(model, torch.where(side, 1.2, 0.4), context, torch.full((ROWS,), 10))
    fitted(model, scales, clips, folds)
    assert not scales.direction.any()


def test_it_never_grows_with_what_was_heard() -> None:
    """Nor falls with what is unlike training, whatever the clips at hand say."""
    model, scales = scaled()
    context, steps = random_contexts(model), torch.tensor([2, 50]).repeat(ROWS // 2)
    far = (context - context.mean(dim=0)).norm(dim=1)
    clips = laplace(model, 0.1 * steps.float().sqrt() / far, context, steps)
    fitted(model, scales, clips)
    assert scales.heard[PLACE].item() == scales.unlike[PLACE].item() == 0


def test_half_a_width_in_scales_holds_nine_in_ten() -> None:
    """On other clips than the scales were fitted on, and alike for few and many steps."""
    model, scales = scaled()
    steps = torch.tensor([2, 50]).repeat(ROWS // 2)
    clips = laplace(model, 2 / steps.float().sqrt(), random_contexts(model), steps)
    seen, new = (clips.of_rows(torch.arange(ROWS) // 2 % 2 == half) for half in (0, 1))
    fitted(model, scales, seen)
    quantile = scaled_intervals(model, scales, {"audio": new}).quantile["audio"]
    inside = errors(model, "audio", new) <= quantile * scales_of(scales, "audio", new)
    for count in (2, 50):
        assert float(inside[new.steps == count].float().mean()) == pytest.approx(0.9, abs=0.04)


def test_corpora_count_the_same() -> None:
    """However many rows they have, in the weights and so in the likelihood."""
    source = torch.tensor([4, 4, 4, 9])
    assert balance(source).tolist() == pytest.approx([1 / 6] * 3 + [1 / 2])
    scale, error = torch.tensor([1.0, 1.0, 1.0, 0.5]), torch.tensor([1.0, 1.0, 1.0, 0.0])
    wanted = (np.log(2) + 1) / 2 + np.log(1) / 2
    assert float(unlikelihood(scale, error, source)) == pytest.approx(wanted)
