"""Compare what ships with other ways to fuse, by what people would say of the same labels.

Knows a checkpoint, clips that no head was trained on, people's law and votes. Knows no stream.

A triple's clips are of different people, so that what one person's words, voice and face have in
common is missing: how they err together, and what only their conjunction says.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.clips import DataError
from ..evaluation.conformal import half_width
from ..nn.tam_ulag import MODALITIES
from .crema_votes import Votes
from .fusion_baselines import Way, fitted_shares, other_ways
from .judgement import Judgements, Law
from .triples import Held, HeldClips, Triples, decided, drawn
from .weighted_figures import SIDE, Figure, draws, figures, summary

SUBSETS = tuple(
    torch.tensor(present).bool() for present in ((1, 1, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1))
)
"""Sets of present modalities in which there is something to fuse."""
VOICE_FACE = SUBSETS[3]
DRAWS = 500
REPEATS = 10
"""Draws of clips for each conflict of the votes."""
SHIPPED = "shipped"


class FusionScore(NamedTuple):
    """One way to fuse on one set of present modalities."""

    people: str
    """Whose labels come together and whose law makes the targets: `judgements` or `votes`."""
    present: str
    clips: str
    """`all`, or `conflicts`: one label is at least 0.5 and another at most -0.5."""
    way: str
    n: int
    half: float
    """Median half width of its 90 % intervals."""
    figures: dict[str, Figure]
    """MAE, Corr, sign (share of the targets beyond 0.5 whose sign is right), covered; and `less`,
    the MAE of what ships minus this one, and `more`, Corr minus that of what ships: above 0 this
    way is better."""


class Siding(NamedTuple):
    """One way on voice and face as in those conflicts of CREMA-D that people decide by the face."""

    way: str
    n: int
    """Conflicts."""
    figures: dict[str, Figure]
    """sign: share of the estimates on the face's side of 0; nearer: of those nearer to the face's
    label than to the voice's."""


class Split(NamedTuple):
    """Shares that were fitted on one half of the people, compared on the other half."""

    shares: tuple[float, ...]
    less: dict[str, float]
    """Per set of modalities the MAE of what ships minus that of these shares."""
    more: dict[str, float]
    """Per set Corr of these shares minus that of what ships."""


class Comparison(NamedTuple):
    """All that is compared."""

    scores: list[FusionScore]
    sidings: list[Siding]
    splits: list[Split]
    shares: tuple[float, ...]
    """Those of way `fitted`."""


def compare(
    held: Held,
    people: Judgements,
    votes: Votes | None,
    rng: np.random.Generator,
    *,
    triples: int,
    splits: int = 0,
) -> Comparison:
    """Compare the ways on the half of the people on whom neither scale nor way was fitted.

    Args:
        held: Of a checkpoint with shares.
        people: Which labels come together, and what people make of them.
        votes: Of CREMA-D; None: no table of them.
        rng: Draws triples.
        triples: Their number in each half.
        splits: Random halves of the people, in each of which shares are fitted anew.

    Raises:
        DataError: If a half has no clip of a modality.
    """
    first = {name: clips.part < 2 for name, clips in held.clips.items()}
    seen, new = _halves(held, people.labels, first, rng, triples)
    shares = held.model.config.shares
    fitted = fitted_shares(seen[1], people.law, SUBSETS, shares)
    rows = [
        row
        for present in SUBSETS
        for row in _scored(held, seen, new, people.law, present, fitted, "judgements")
    ]
    sidings = []
    if votes is not None:
        labels = _triples_of(votes.labels())
        halves = _halves(held, labels, first, rng, triples)
        rows += _scored(held, *halves, _law_of(votes), VOICE_FACE, fitted, "votes")
        ways = other_ways(seen[1], people.law, VOICE_FACE, shares, fitted)
        sidings = _sidings(held, new[0], ways, labels[votes.face_decides(SIDE)], rng)
    found = [_split(held, people, rng, triples) for _ in range(splits)]
    return Comparison(rows, sidings, found, tuple(fitted.tolist()))


_Half = tuple[dict[str, HeldClips], Triples]


def _triples_of(voice_face: Tensor) -> Tensor:
    """Return wanted labels (N, M); words, which are not present, have 0."""
    # Fewer distinct ones are quicker to draw, and finer than the labels are.
    wanted = voice_face.round(decimals=1)
    return torch.cat([torch.zeros(len(wanted), 1), wanted], dim=1)


def _law_of(votes: Votes) -> Law:
    found = votes.weighing()
    return Law((0.0, found.voice, found.face), found.fit**0.5, found.clips)


def _halves(
    held: Held, labels: Tensor, first: Mapping[str, Tensor], rng: np.random.Generator, count: int
) -> tuple[_Half, _Half]:
    """Return clips and triples of the first half and of the other one.

    Args:
        held: The clips.
        labels: (R, M) that come together.
        first: Per modality whether a clip is of the first half, (N,) bool.
        rng: Draws labels and clips.
        count: Triples of each half.

    Raises:
        DataError: If a half has no clip of a modality.
    """
    out = []
    for side in (True, False):
        clips = {n: part.of_rows(first[n] == side) for n, part in held.clips.items()}
        for name, part in clips.items():
            if not len(part.label):
                raise DataError(
                    f"{name}: all validation clips are in one half of the people: name more "
                    "speakers or videos in valid or valid_groups"
                )
        rows = torch.from_numpy(rng.integers(0, len(labels), count))
        out.append((clips, drawn(held.model, clips, labels[rows], rng)))
    return out[0], out[1]


def _scored(
    held: Held,
    seen: _Half,
    new: _Half,
    law: Law,
    present: Tensor,
    fitted: Tensor,
    people: str,
) -> list[FusionScore]:
    """Return a row per way on all triples, and on those that contradict each other."""
    ways = other_ways(seen[1], law, present, held.model.config.shares, fitted)
    target = law.of(new[1].label, present)
    weight = draws(new[1].person[:, present], DRAWS, 1)
    shipped, its_half = shipped_estimates(held, new[0], new[1], present)
    estimates = {SHIPPED: (shipped, its_half)}
    learned = law.of(seen[1].label, present)
    for name, way in ways.items():
        half = half_width((way(seen[1]) - learned).abs(), len(learned)) or torch.inf
        estimates[name] = way(new[1]), torch.full_like(target, half)
    there = new[1].label[:, present]
    apart = (there.amax(dim=1) >= SIDE) & (there.amin(dim=1) <= -SIDE)
    rows = []
    for clips, chosen in (("all", torch.ones_like(apart)), ("conflicts", apart)):
        if not chosen.any():
            continue
        found = {
            name: figures(x[chosen], target[chosen], half[chosen], weight[:, chosen])
            for name, (x, half) in estimates.items()
        }
        rows += [
            FusionScore(
                people,
                _names(present),
                clips,
                name,
                int(chosen.sum()),
                float(estimates[name][1][chosen].median()),
                {key: summary(x) for key, x in _beside(its, found[SHIPPED]).items()},
            )
            for name, its in found.items()
        ]
    return rows


def _beside(its: Mapping[str, Tensor], shipped: Mapping[str, Tensor]) -> dict[str, Tensor]:
    less, more = shipped["MAE"] - its["MAE"], its["Corr"] - shipped["Corr"]
    return {**its, "less": less, "more": more}


def shipped_estimates(
    held: Held, clips: Mapping[str, HeldClips], triples: Triples, present: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the model's own estimates (B,), and the half widths of their intervals."""
    output = decided(held.model, clips, triples.rows, present)
    spread = (output.weight * output.scale)[:, 0]
    steps = [clips[n].steps[triples.rows[:, m]].tolist() for m, n in enumerate(MODALITIES)]
    names = [name for name, there in zip(MODALITIES, present.tolist(), strict=True) if there]
    halves = []
    for heard, wide in zip(zip(*steps, strict=True), spread.tolist(), strict=True):
        known = dict(zip(MODALITIES, zip(heard, wide, strict=True), strict=True))
        half = held.card.half_width(
            {name: known[name][0] for name in names},
            {name: known[name][1] for name in names} if held.model.config.scales else None,
        )
        halves.append(torch.inf if half is None else half)
    return output.sentiment[:, 0], torch.tensor(halves)


def _sidings(
    held: Held,
    clips: Mapping[str, HeldClips],
    ways: Mapping[str, Way],
    wanted: Tensor,
    rng: np.random.Generator,
) -> list[Siding]:
    """Return a row per way, on clips with the labels (K, M) of conflicts that the face decided."""
    # Many draws of each conflict, as the heads err on some clips and not on others.
    triples = drawn(held.model, clips, wanted.repeat(REPEATS, 1), rng)
    voice, face = triples.label[:, 1], triples.label[:, 2]
    weight = draws(triples.person[:, VOICE_FACE], DRAWS, 1)
    estimates = {SHIPPED: shipped_estimates(held, clips, triples, VOICE_FACE)[0]}
    estimates |= {name: way(triples) for name, way in ways.items()}
    total = weight.sum(dim=1)
    return [
        Siding(
            name,
            len(wanted),
            {
                "sign": summary(weight @ (x * face > 0).float() / total),
                "nearer": summary(weight @ ((x - face).abs() < (x - voice).abs()).float() / total),
            },
        )
        for name, x in estimates.items()
    ]


def _split(held: Held, people: Judgements, rng: np.random.Generator, count: int) -> Split:
    """Fit shares on a random half of the people of each corpus, and compare on the others."""
    first = {name: _random_half(clips, rng) for name, clips in held.clips.items()}
    seen, new = _halves(held, people.labels, first, rng, count)
    shares = held.model.config.shares
    fitted = fitted_shares(seen[1], people.law, SUBSETS, shares)
    everybody, less, more = torch.ones(1, count), {}, {}
    for present in SUBSETS:
        target = people.law.of(new[1].label, present)
        ways = other_ways(seen[1], people.law, present, shares, fitted)
        shipped, half = shipped_estimates(held, new[0], new[1], present)
        old = figures(shipped, target, half, everybody)
        beside = _beside(figures(ways["fitted"](new[1]), target, half, everybody), old)
        less[_names(present)], more[_names(present)] = float(beside["less"]), float(beside["more"])
    return Split(tuple(fitted.tolist()), less, more)


def _random_half(clips: HeldClips, rng: np.random.Generator) -> Tensor:
    """Return for each clip whether it is of the first half, (N,) bool."""
    first = torch.zeros(len(clips.label), dtype=torch.bool)
    for corpus in clips.corpus.unique():
        people = clips.person[clips.corpus == corpus].unique().numpy()
        # Of an odd number chance decides which half has one more; so of one alone.
        count = (len(people) + int(rng.integers(0, 2))) // 2
        first |= torch.isin(clips.person, torch.from_numpy(rng.permutation(people)[:count]))
    return first


def _names(present: Iterable[Tensor]) -> str:
    return "+".join(name for name, there in zip(MODALITIES, present, strict=True) if there)
