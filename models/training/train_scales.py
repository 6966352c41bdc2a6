"""Fit the scales of the heads, and calibrate the intervals that are made of them.

Knows pooled vectors and the model. Knows no feature file and no stream.

Shapes: R rows of one modality, H_m units of it.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..evaluation.conformal import Residuals, Widths, quantiles
from ..nn.scale import Measures, Scales, scale_of
from ..nn.tam_ulag import MODALITIES, TamUlag, bounded
from .progress import Log
from .train_fusion import PrefixVectors

STEPS, RATE = 400, 2e-2
"""Of b, a and c, which are fitted first."""
LEAN_STEPS, LEAN_RATE, DECAY = 300, 3e-3, 1e-2
"""Of all, with the direction w; at most so many steps."""
SHRUNK = 0.05
"""Of the covariance of contexts towards its diagonal, so that it can be inverted."""
USUAL = 0.99
"""Of the rows that a scale is fitted on lie within `Scales.limit`."""


class _Rows(NamedTuple):
    """What the scale of one modality is fitted on."""

    z: Tensor
    """(R, H_m) z / (1 + d), in deviations of training."""
    unlike: Tensor
    """(R,) t."""
    heard: Tensor
    """(R,) u."""
    error: Tensor
    """(R,) |score - label|."""
    source: Tensor
    """(R,) which corpus it is of."""

    def chosen(self, rows: Tensor) -> "_Rows":
        return _Rows(*(part[rows] for part in self))


class _Numbers(NamedTuple):
    """What is fitted of one modality."""

    bias: Tensor
    unlike: Tensor
    heard: Tensor
    direction: Tensor
    """(H_m,), in deviations of training."""


def fit_scales(
    model: TamUlag,
    scales: Scales,
    clips: Mapping[str, PrefixVectors],
    folds: Mapping[str, Tensor],
    typical: Mapping[str, Tensor],
    log: Log,
) -> None:
    """Fit the scale of each head by the likelihood of its errors; the scores stay as they are.

    First what all contexts share, then the direction, for as many steps as help people who are
    not fitted on: where there are few of them, none. The corpora of a modality count the same, as
    in `conformal.widths`.

    Args:
        model: Whose heads they are.
        scales: Of the model, fitted in place.
        clips: Per modality, clips and prefixes that its head was not trained on.
        folds: Per modality whether a row is of the first or of the second of two folds, (R,) 0 or
            1; no person is in both.
        typical: Per modality contexts (N, H_m) of training, which `Scales` compares with.
        log: Called with a line for each modality.
    """
    first = 0
    for place, (name, size) in enumerate(zip(MODALITIES, scales.sizes, strict=True)):
        units, first = slice(first, first + size), first + size
        if name not in clips:
            continue
        deviation = _set_typical(scales, units, typical[name])
        rows = _rows(model, scales, name, units, deviation, clips[name])
        limit = rows.unlike.quantile(USUAL)
        steps, found = _fitted(rows, folds[name], limit)
        with torch.no_grad():
            scales.limit[place] = limit
            for key in ("bias", "unlike", "heard"):
                getattr(scales, key)[place] = getattr(found, key)
            scales.direction[units] = found.direction / deviation
        log(
            f"  {name} scale: bias {found.bias:.3f}, unlike {found.unlike:.3f}, heard "
            f"{found.heard:.3f}, direction {found.direction.norm():.3f} of {steps} steps"
        )


def _set_typical(scales: Scales, units: slice, contexts: Tensor) -> Tensor:
    """Set mean and covariance of one modality; return the deviations (H_m,)."""
    scales.mean[units] = contexts.mean(dim=0)
    z = contexts - contexts.mean(dim=0)
    covariance = z.T @ z / len(z)
    deviation = covariance.diagonal().sqrt().clamp(min=1e-3)
    covariance = (1 - SHRUNK) * covariance + SHRUNK * torch.diag(deviation.square())
    root = torch.linalg.inv(torch.linalg.cholesky(covariance)).T
    scales.whitening[units, units] = root / len(root) ** 0.5
    return deviation


@torch.no_grad()
def _rows(
    model: TamUlag, scales: Scales, name: str, units: slice, deviation: Tensor, clips: PrefixVectors
) -> _Rows:
    z = clips.context - scales.mean[units]
    far = (z @ scales.whitening[units, units]).square().sum(dim=1) + 1
    return _Rows(
        z / (deviation * far.unsqueeze(1)),
        torch.log(far),
        torch.log(clips.steps.float().clamp(min=1)),
        errors(model, name, clips),
        clips.source,
    )


def errors(model: TamUlag, name: str, clips: PrefixVectors) -> Tensor:
    """Return the distance (R,) of a head's scores from the labels."""
    return (bounded(getattr(model, name).head(clips.context)[:, 0]) - clips.label).abs()


def _fitted(rows: _Rows, folds: Tensor, limit: Tensor) -> tuple[int, _Numbers]:
    """Return the steps with the direction, and what is fitted."""
    zero = torch.zeros(())
    mean = (balance(rows.source) * rows.error).sum().clamp(min=1e-3)
    start = _Numbers(torch.log(mean), zero, zero, torch.zeros_like(rows.z[0]))
    common, _ = _descended(start, 3, rows, limit, STEPS, RATE)
    curves = []
    for fold in (0, 1):
        others, held = rows.chosen(folds != fold), rows.chosen(folds == fold)
        _, curve = _descended(common, 4, others, limit, LEAN_STEPS, LEAN_RATE, held)
        curves.append(torch.stack(curve))
    steps = int(torch.stack(curves).sum(dim=0).argmin())
    return steps, _descended(common, 4, rows, limit, steps, LEAN_RATE)[0]


def _descended(
    start: _Numbers,
    count: int,
    rows: _Rows,
    limit: Tensor,
    steps: int,
    rate: float,
    held: _Rows | None = None,
) -> tuple[_Numbers, list[Tensor]]:
    """Return the numbers after these steps, of which the first `count` move.

    And before each step the unlikelihood of the rows that are held out, if any.
    """
    free = [part.detach().clone().requires_grad_(place < count) for place, part in enumerate(start)]
    found, curve = _Numbers(*free), list[Tensor]()
    optimiser = torch.optim.AdamW(free[:count], lr=rate, weight_decay=DECAY)
    for _ in range(steps):
        if held is not None:
            with torch.no_grad():
                curve.append(_loss(found, held, limit))
        optimiser.zero_grad()
        _loss(found, rows, limit).backward()
        optimiser.step()
        with torch.no_grad():
            # A scale never falls with what is unlike training, nor rises with what was heard.
            found.unlike.clamp_(min=0.0)
            found.heard.clamp_(min=0.0)
    return _Numbers(*(part.detach() for part in free)), curve


def _loss(found: _Numbers, rows: _Rows, limit: Tensor) -> Tensor:
    measures = Measures(rows.unlike, rows.heard, rows.z @ found.direction)
    scale = scale_of(measures, found.bias, found.unlike, found.heard, limit)
    return unlikelihood(scale, rows.error, rows.source)


def unlikelihood(scale: Tensor, error: Tensor, source: Tensor) -> Tensor:
    """Return the mean negative log-likelihood, log(2 s) + |error| / s, of Laplace's density.

    Args:
        scale: (R,) s.
        error: (R,) its absolute value.
        source: (R,) corpus of each row; all count the same.
    """
    return (balance(source) * (torch.log(2 * scale) + error / scale)).sum()


def balance(source: Tensor) -> Tensor:
    """Return weights (R,) with which every corpus counts the same; they sum to 1."""
    _, corpus, count = source.unique(return_inverse=True, return_counts=True)
    weight: Tensor = 1 / (count[corpus] * len(count))
    return weight


@torch.inference_mode()
def scales_of(scales: Scales, name: str, clips: PrefixVectors) -> Tensor:
    """Return the scales (R,) of one modality's clips and prefixes."""
    place = MODALITIES.index(name)
    contexts = [torch.zeros(len(clips.label), 1, size) for size in scales.sizes]
    contexts[place] = clips.context.unsqueeze(1)
    most = int(clips.steps.max())
    there = (torch.arange(most) < clips.steps.unsqueeze(1)).float().unsqueeze(1)
    found: Tensor = scales(contexts, [there] * len(MODALITIES))
    return found[:, 0, place]


@torch.inference_mode()
def scaled_intervals(model: TamUlag, scales: Scales, clips: Mapping[str, PrefixVectors]) -> Widths:
    """Calibrate the half width of each modality alone in units of its scale.

    Args:
        model: Whose heads they are.
        scales: Of the model, fitted.
        clips: Per modality, clips and prefixes that neither its head nor its scale was fitted on.
    """
    found = {}
    for name, part in clips.items():
        size = errors(model, name, part) / scales_of(scales, name, part)
        level, one = torch.zeros_like(part.clip), part.clip.unsqueeze(1)
        found[name] = Residuals(size, level, one, part.source.unsqueeze(1))
    return quantiles(found)
