"""Scales against one width per level, on errors whose sizes are known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from support.model_contract import tiny
from support.paths import ROOT
from tamulag.models import MODALITIES, ModelConfig, TamUlag
from tamulag.models.bench.scale_comparison import HeldOut, ScaleRow, compare, open_held_out
from tamulag.models.data.clips import DataError
from tamulag.models.runtime.checkpoint import Card, save
from tamulag.models.training.train_fusion import PrefixVectors
from tamulag.models.training.train_scales import scales_of

ROWS = 2000
SHARES = (0.45, 0.15, 0.55)


def held_out(noise: str, *, follows: bool = True) -> HeldOut:
    """Return clips whose scores are off by errors of the model's scales, or of a constant one."""
    model = tiny(ModelConfig(scales=True, shares=SHARES))
    assert model.scales is not None
    with torch.no_grad():
        model.scales.bias.fill_(-1.0)
        model.scales.direction.copy_(2 * torch.randn(model.scales.direction.shape))
        model.scales.limit.fill_(torch.inf)
    random, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    clips, part = {}, {}
    for name in MODALITIES:
        clips[name] = clip_rows(model, name, noise, follows, random, generator)
        part[name] = torch.arange(ROWS) % 4
    return HeldOut(model, clips, part, 0.5)


def clip_rows(
    model: TamUlag,
    name: str,
    noise: str,
    follows: bool,
    random: np.random.Generator,
    generator: torch.Generator,
) -> PrefixVectors:
    assert model.scales is not None
    context = torch.randn(ROWS, getattr(model, name).size, generator=generator)
    steps, one = torch.full((ROWS,), 60), torch.zeros(ROWS, dtype=torch.int64)
    rows = PrefixVectors(context, torch.zeros(ROWS), torch.arange(ROWS), steps, one)
    scale = scales_of(model.scales, name, rows) if follows else torch.full((ROWS,), 0.3)
    drawn = {
        "laplace": random.laplace(size=ROWS),
        "gaussian": random.standard_normal(ROWS),
        "student": random.standard_t(2.0, ROWS),
    }[noise]
    with torch.no_grad():
        score = 3 * torch.tanh(getattr(model, name).head(context)[:, 0] / 3)
    return replace(rows, label=score + scale * torch.from_numpy(drawn).float())


def by_width(held: HeldOut, head: str) -> dict[str, ScaleRow]:
    rows, _ = compare(held, np.random.default_rng(0))
    return {row.width: row for row in rows if row.head == head}


@pytest.mark.parametrize("noise", ["laplace", "student", "gaussian"])
def test_the_density_of_the_errors_is_the_likeliest(noise: str) -> None:
    """Student's can be the others nearly, and is no better than what they are."""
    found = by_width(held_out(noise), "audio")["scale"]
    best = getattr(found, noise)
    assert all(best < getattr(found, other) + 0.01 for other in ("laplace", "student", "gaussian"))
    assert max(found.laplace, found.gaussian) > best + 0.02


def test_a_scale_that_is_right_is_likelier_and_narrower() -> None:
    """Both cover nine in ten; of errors that do not follow it, it is no better."""
    right = by_width(held_out("laplace"), "text")
    assert right["scale"].laplace < right["level"].laplace - 0.02
    assert right["scale"].n == right["level"].n == ROWS / 2
    for row in right.values():
        assert row.covered == pytest.approx(0.9, abs=0.03)
    wrong = by_width(held_out("laplace", follows=False), "text")
    assert wrong["scale"].laplace >= wrong["level"].laplace - 0.02
    assert wrong["scale"].half > wrong["level"].half


def test_likelihood_is_that_of_the_density() -> None:
    """Laplace's errors of scale b: 1 + log(2 b) on average."""
    found = by_width(held_out("laplace", follows=False), "vision")["level"]
    assert found.laplace == pytest.approx(1 + np.log(2 * 0.3), abs=0.08)
    assert found.half == pytest.approx(0.3 * np.log(10), abs=0.08)


def test_pairs_weighed_by_right_scales_are_nearer() -> None:
    """Every set of several modalities, in both ways."""
    _, pairs = compare(held_out("laplace"), np.random.default_rng(0))
    assert [pair.present for pair in pairs[::2]] == [
        "text+audio",
        "text+vision",
        "audio+vision",
        "text+audio+vision",
    ]
    plain, scaled = pairs[-2:]
    assert (plain.way, scaled.way) == ("shares", "shares / (1 + scale^2)")
    assert scaled.MAE < plain.MAE


def test_too_few_clips_have_no_interval() -> None:
    """Not a number, and no error."""
    held = held_out("laplace")
    few = torch.arange(24)
    held = HeldOut(
        held.model,
        {"audio": held.clips["audio"].of_rows(few)},
        {"audio": held.part["audio"][few]},
        0.5,
    )
    rows, pairs = compare(held, np.random.default_rng(0))
    assert [np.isnan(row.half) for row in rows] == [True, True]
    assert pairs == []


def test_a_checkpoint_without_scales_is_refused(model: TamUlag, tmp_path: Path) -> None:
    """With the remedy."""
    path = tmp_path / "some.safetensors"
    save(model, Card(trained=dict.fromkeys(("sentiment", *MODALITIES), True)), path)
    with pytest.raises(DataError, match="no scales: train one with"):
        open_held_out(
            str(path), ROOT / "configs" / "train" / "default.toml", np.random.default_rng(0)
        )
