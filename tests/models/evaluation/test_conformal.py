"""Intervals hold nine of ten labels, at every length of a prefix, on average over corpora."""

import numpy as np
import pytest
import torch

from tamulag.models.evaluation.conformal import (
    LEVELS,
    STEPS,
    Residuals,
    Widths,
    dependent,
    half_width,
    levels,
    quantiles,
    widths,
)

CLIPS = 400
NOISE = (2.0, 1.0, 0.5, 0.25)
"""Standard deviation of the error per level, shortest prefixes first."""


def residuals(seed: int, clips: int = CLIPS, noise: tuple[float, ...] = NOISE) -> Residuals:
    """Return one residual per clip and level, normal with a known deviation."""
    size = np.abs(np.random.default_rng(seed).normal(size=(clips, LEVELS)) * noise)
    level = torch.arange(LEVELS).repeat(clips)
    clip = torch.arange(clips).repeat_interleave(LEVELS).unsqueeze(-1)
    made = torch.from_numpy(size.ravel()).float()
    return Residuals(made, level, clip, torch.zeros_like(clip))


def together(one: Residuals, other: Residuals) -> Residuals:
    """Return the residuals of two corpora."""
    clip, source = other.clip + int(one.clip.max()) + 1, other.source + 1
    moved = other._replace(clip=clip, source=source)
    return Residuals(*(torch.cat(pair) for pair in zip(one, moved, strict=True)))


def all_of(found: Residuals) -> list[float]:
    """Return the half widths of the only set, shortest prefixes first."""
    made = widths({"text": found})
    return [*made.begun["text"], made.interval["text"]]


def inside(half: list[float], found: Residuals, level: int) -> float:
    """Return the share of residuals of a level that its half width holds."""
    return float((found.size[found.level == level] <= half[level]).float().mean())


@pytest.mark.parametrize("level", range(LEVELS))
def test_each_level_covers_nine_of_ten_new_labels(level: int) -> None:
    """Over new draws of the same noise, neither clearly less nor all of them."""
    half = all_of(residuals(0))
    share = np.mean([inside(half, residuals(seed), level) for seed in range(1, 21)])
    assert 0.87 < share < 0.95


def test_half_widths_are_those_of_the_noise() -> None:
    """The 90 % quantile of a normal distribution's distance from 0 is 1.645 deviations."""
    half = all_of(residuals(0, clips=4000))
    assert half == pytest.approx([1.645 * deviation for deviation in NOISE], rel=0.06)


def test_a_beginning_is_never_narrower_than_more() -> None:
    """Also where the residuals of less happen to be smaller."""
    half = all_of(residuals(0, noise=(0.25, 2.0, 0.5, 1.0)))
    assert half == sorted(half, reverse=True)
    assert half[0] == half[1]


def test_corpora_count_the_same() -> None:
    """Nine of ten are inside on average over a large and a small one, not over their clips."""
    large, small = residuals(1, clips=2000), residuals(2, clips=200, noise=(4.0, 2.0, 1.0, 0.5))
    half = all_of(together(large, small))
    for level in range(LEVELS):
        shares = inside(half, large, level), inside(half, small, level)
        assert np.mean(shares) == pytest.approx(0.9, abs=0.01)
        assert shares[1] < 0.9 < shares[0]


def test_few_clips_of_one_corpus_lower_n() -> None:
    """Of 400 and 20 clips that count the same in all there are as good as 76."""
    both = together(residuals(1), residuals(2, clips=20))
    assert widths({"text": both}).clips["text"] == [76] * LEVELS


def test_weights_move_the_quantile() -> None:
    """A residual that counts ninefold is as nine of them."""
    size, weight = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 18.0, 1.0])
    assert half_width(size, 1000, weight) == 2.0
    assert half_width(size, 1000) == 3.0


def test_repeated_clips_do_not_count_as_more() -> None:
    """The rank comes from distinct clips: twenty draws of ten ask for the largest residual."""
    size = torch.linspace(0.1, 1.0, 10)
    assert half_width(size.repeat(20), 10) == 1.0
    assert half_width(torch.linspace(0.1, 1.0, 200), 200) == pytest.approx(0.91, abs=0.01)


def test_too_few_clips_have_no_interval() -> None:
    """Of eight clips none gives the 90 % quantile, however often they are drawn."""
    assert half_width(torch.ones(800), 8) is None
    assert widths({"text": residuals(0, clips=8)}) == ({}, {}, {}, {}, {})


def test_the_rarest_modality_counts() -> None:
    """Of pairs of many texts with few voices it is the voices that give n."""
    many = residuals(0)
    clip = torch.cat([many.clip, many.clip % 30], dim=1)
    pairs = many._replace(clip=clip, source=torch.zeros_like(clip))
    assert widths({"text+audio": pairs}).clips == {"text+audio": [30] * LEVELS}


def test_a_level_without_clips_takes_all() -> None:
    """Where no prefix is long, the half width is that of all residuals."""
    some = residuals(0)
    few = Residuals(*(part[some.level < 2] for part in some))
    half = all_of(few)
    assert half[2] == half[3] == half_width(few.size, CLIPS)


@pytest.mark.parametrize("name", STEPS)
def test_levels_begin_at_their_steps(name: str) -> None:
    """One step less belongs to the level before."""
    edges = torch.tensor(STEPS[name])
    assert levels(edges, name).tolist() == [1, 2, 3]
    assert levels(edges - 1, name).tolist() == [0, 1, 2]


def test_a_tiny_corpus_takes_no_interval_away() -> None:
    """One clip does not represent its corpus; the others are calibrated without it."""
    large = residuals(1)
    both = together(large, residuals(2, clips=1))
    assert widths({"text": both}) == widths({"text": large})


def test_several_modalities_of_one_person_may_err_together() -> None:
    """The half width of a set is at least the mean of those of its members, by their shares."""
    begun = {"text": [3.0, 2.0, 2.0], "vision": [1.0, 1.0, 1.0], "text+vision": [1.0, 1.8, 1.0]}
    interval = {"text": 2.0, "vision": 1.0, "text+vision": 0.8}
    found = dependent(
        Widths(interval, begun, {}, {}, {}), {"text": 0.25, "audio": 0.5, "vision": 0.75}
    )
    assert found.interval == {"text": 2.0, "vision": 1.0, "text+vision": 1.25}
    assert found.begun["text+vision"] == [1.5, 1.8, 1.25]
    assert found.begun["text"] == begun["text"]


def test_in_units_of_its_scale_one_number_holds_at_all_levels() -> None:
    """Errors that are as large as their scales say have one quantile; too few clips have none."""
    one = residuals(0)
    scaled = one._replace(size=one.size / torch.tensor(NOISE)[one.level])
    found = quantiles({"text": scaled, "audio": residuals(0, clips=8)})
    assert found.quantile == {"text": pytest.approx(1.645, abs=0.1)}
    assert found.clips == {"text": [CLIPS]}
    assert (found.interval, found.begun, found.heard) == ({}, {}, {})
