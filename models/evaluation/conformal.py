"""Half widths of the fused estimate's 90 % intervals, by split conformal prediction.

Knows residuals and the number of valid steps behind each. Knows no model and no
stream.

Shapes: R residuals, M' present modalities.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

SHARE = 0.9
"""Of the labels that an interval is to hold."""
STEPS = {"text": [4, 8, 12], "audio": [25, 50, 75], "vision": [3, 7, 13]}
"""Valid steps in the window at which the next level begins: tokens of text, ticks (20 ms) of audio,
frames (10 Hz) of vision."""
LEVELS = 4
FEWEST = 9
"""Distinct clips below which there is no 90 % quantile."""


class Widths(NamedTuple):
    """The intervals of a card, under its keys; see `Card`."""

    interval: dict[str, float]
    begun: dict[str, list[float]]
    heard: dict[str, list[int]]
    clips: dict[str, list[int]]
    quantile: dict[str, float]


class Residuals(NamedTuple):
    """Distances between estimates and labels for one set of present modalities."""

    size: Tensor
    """(R,) float32, |estimate - label|."""
    level: Tensor
    """(R,) int64 in [0, LEVELS): by the valid steps of the modality that has the fewest."""
    clip: Tensor
    """(R, M') int64, which clip of each present modality the estimate is of."""
    source: Tensor
    """(R, M') int64, of which corpus it is."""


def levels(steps: Tensor, name: str) -> Tensor:
    """Return the level of each number of valid steps of a modality."""
    return torch.bucketize(steps, torch.tensor(STEPS[name]), right=True)


def half_width(size: Tensor, count: int, weight: Tensor | None = None) -> float | None:
    """Return the split conformal half width at 90 %, or None where there is none.

    q = their ceil(0.9 (n + 1)) / n quantile (Vovk et al. 2005; Lei et al. 2018), with n distinct
    clips. Below 9 no such quantile exists.

    Args:
        size: (R,) distances |estimate - label|, any number per clip.
        count: Distinct clips that they are of, n.
        weight: (R,) what each counts; None: all alike.
    """
    rank = int(np.ceil(SHARE * (count + 1)))
    if rank > count:
        return None
    rising, order = size.sort()
    mass = torch.ones_like(size) if weight is None else weight[order]
    share = mass.double().cumsum(dim=0) / mass.double().sum()
    # Less than any step, so that rounding does not take the next residual.
    place = int(torch.searchsorted(share, rank / count - 1e-9))
    return round(float(rising[min(place, len(rising) - 1)]), 4)


def widths(found: Mapping[str, Residuals]) -> Widths:
    """Return the half widths of each set of modalities, per level.

    Within a level every corpus counts the same, however many clips it has: 90 % are inside on
    average over the corpora, not only in the largest. What is known of less is never narrower.

    Args:
        found: Per set of present modalities, e.g. `text+audio`. A set with fewer than 9 distinct
            clips has no interval.
    """
    halves = {}
    for key, residuals in found.items():
        rows = [_level(residuals, level) for level in range(LEVELS)]
        known = [row for row in rows if row is not None]
        if len(known) == LEVELS:
            halves[key] = [max(known[level:]) for level in range(LEVELS)]
    return Widths(
        {key: rows[-1][0] for key, rows in halves.items()},
        {key: [half for half, _ in rows[:-1]] for key, rows in halves.items()},
        STEPS if halves else {},
        {key: [count for _, count in rows] for key, rows in halves.items()},
        {},
    )


def quantiles(found: Mapping[str, Residuals]) -> Widths:
    """Return for each modality the quantile of its distances in units of their scales.

    With it half a width is that quantile times the scale: split conformal prediction with a
    normalised residual (Lei et al. 2018, section 5.2). Corpora count as in `widths`.

    Args:
        found: Per modality, `size` divided by the scale. One with fewer than 9 distinct clips has
            no interval.
    """
    rows = {
        name: _width(part, torch.ones_like(part.clip[:, 0] >= 0)) for name, part in found.items()
    }
    known = {name: row for name, row in rows.items() if row is not None}
    return Widths(
        {},
        {},
        {},
        {name: [count] for name, (_, count) in known.items()},
        {name: quantile for name, (quantile, _) in known.items()},
    )


def dependent(found: Widths, shares: Mapping[str, float]) -> Widths:
    """Return half widths that hold for one person, whose modalities may err together.

    The estimate is a weighed mean of the heads, so its error is at most the weighed mean of theirs.
    Pairs of strangers err independently of each other, and their mean errs less: a set of several
    modalities is never narrower than the weighed mean of the half widths of each alone.

    Args:
        found: Of pairs of strangers, and of each modality alone.
        shares: Of each modality in the mean.
    """
    interval, begun = dict(found.interval), dict(found.begun)
    for key in found.interval:
        names = key.split("+")
        if len(names) == 1 or not all(name in found.interval for name in names):
            continue
        interval[key] = max(found.interval[key], _mean(found.interval, shares, names))
        begun[key] = [
            max(half, _mean({name: found.begun[name][level] for name in names}, shares, names))
            for level, half in enumerate(found.begun[key])
        ]
    return found._replace(interval=interval, begun=begun)


def _mean(halves: Mapping[str, float], shares: Mapping[str, float], names: Sequence[str]) -> float:
    total = sum(shares[name] for name in names)
    return round(sum(shares[name] * halves[name] for name in names) / total, 4)


def _level(found: Residuals, level: int) -> tuple[float, int] | None:
    """Return half width and n of one level; of all residuals where the level has too few clips."""
    here = found.level == level
    return _width(found, here) or _width(found, torch.ones_like(here))


def _width(found: Residuals, rows: Tensor) -> tuple[float, int] | None:
    size, clip = found.size[rows], found.clip[rows]
    if not len(size):
        return None
    _, corpus = found.source[rows].unique(dim=0, return_inverse=True)
    clips = torch.tensor([_rarest(clip[corpus == one]) for one in corpus.unique()])
    if len(clips) > 1 and clips.max() >= FEWEST > clips.min():
        # So few do not represent their corpus, and would leave the others without an interval.
        enough = rows.clone()
        enough[rows] = (clips >= FEWEST)[corpus]
        return _width(found, enough)
    # Kish's effective size of samples that count the same in all: few clips of one weigh on n.
    count = int(len(clips) ** 2 / (1 / clips.double()).sum() + 1e-6)
    half = half_width(size, count, 1 / corpus.bincount()[corpus])
    return None if half is None else (half, count)


def _rarest(clip: Tensor) -> int:
    """Return the number of distinct clips of the modality that has the fewest."""
    return min((len(column.unique()) for column in clip.unbind(dim=1)), default=0)
