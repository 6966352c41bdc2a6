"""ULAG on triples of real clips: each modality's own label is known, the method sees the fused one.

Words, voice and face of different people are put together so that their labels come together as
people's labels of one clip do, and are labelled by people's law on the three. Knows clips, the law
and the generator. Knows no checkpoint and no command line.

Shapes: N clips of a modality, B triples, M = 3 modalities (text, audio, vision), D values.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.clips import Array, read_labelled
from ..data.corpus import from_clips
from ..data.text_csv import text_clips
from ..nn.constants import LIMIT, MODALITIES
from ..training.branch_batches import read_files
from ..training.progress import Log
from ..training.ridge import fit_ridge
from ..training.train_seeds import mean_interval
from ..training.ulag_labels import Numbers, Places, generate, pooled_vectors
from .judgement import Judgements
from .triples import NEAR

STRENGTH = 3.0
"""Of the heads' ridge."""
BEYOND = 0.5
"""A modality is in conflict if its own label is so far on the other side of 0 than the triple's."""


@dataclass(frozen=True)
class Pool:
    """Clips of one modality."""

    vector: Numbers
    """(N, D), pooled."""
    label: Numbers
    """(N,) in [-3, 3]."""
    group: Places
    """(N,) which speaker, video or picture."""

    def of_rows(self, rows: Places) -> "Pool":
        """Return some clips."""
        return Pool(self.vector[rows], self.label[rows], self.group[rows])


class TripleScore(NamedTuple):
    """Labels of a modality, or a head that was trained on them; means over the seeds."""

    what: str
    """`labels`: of the triples. `head`: of clips of other people. `fused`: of triples of those."""
    labels: str
    """`copied`, `ulag`, or `own`: each modality's, which no method sees."""
    modality: str
    """Whose own label it is measured on; of `fused` `all`, measured on the triple's."""
    figures: dict[str, float]
    """Corr, MAE, sign (negative, neutral or positive); of labels also `conflict`: the share of
    conflicts in which the modality's own sign is found."""
    interval: dict[str, float]
    """Half width of the 95 % interval over the seeds."""


def of_texts(files: Sequence[Path], encode: Callable[[list[str]], Sequence[Array]]) -> Pool:
    """Return sentences of CSVs; `encode` makes token states."""
    rows = [row for file in files for row in read_labelled(file)]
    clips = text_clips(rows, encode([row.text for row in rows]))
    corpus = from_clips(clips, ["text"])
    return _pool(pooled_vectors(corpus)["text"], corpus.labels, corpus.groups)


def of_features(files: Sequence[Path], name: str) -> Pool:
    """Return voices or faces of feature files."""
    corpus = read_files(files, name)
    groups = [f"{c}/{g}" for c, g in zip(corpus.corpora, corpus.groups, strict=True)]
    return _pool(pooled_vectors(corpus)[name], corpus.labels, groups)


def _pool(vectors: tuple[Tensor, Tensor], labels: Tensor, groups: Sequence[str]) -> Pool:
    vector, places = vectors
    codes = np.unique(np.array(groups), return_inverse=True)[1]
    return Pool(vector.double().numpy(), labels[places].double().numpy(), codes[places.numpy()])


def compare_triples(
    clips: Mapping[str, Pool],
    people: Judgements,
    seeds: Sequence[int],
    *,
    triples: int,
    log: Log,
) -> list[TripleScore]:
    """Compare copied and generated labels with own ones, and heads that were trained on each.

    Half of the people of each modality are in the triples of which labels are made; those of the
    other half, as many triples again, measure the heads.

    Args:
        clips: Of each modality.
        people: Which labels come together, and the law.
        seeds: Of halves, draws and folds.
        triples: In each half.
        log: Called with a line of progress.
    """
    found: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    for seed in seeds:
        for key, figures in _once(clips, people, triples, np.random.default_rng(seed)).items():
            found.setdefault(key, []).append(figures)
        log(f"seed {seed} is done")
    rows = []
    for key, parts in found.items():
        values = {name: [figures[name] for figures in parts] for name in parts[0]}
        mean = {name: float(np.mean(v)) for name, v in values.items()}
        interval = {n: mean_interval(v) for n, v in values.items()} if len(parts) > 1 else {}
        rows.append(TripleScore(*key, mean, interval))
    return rows


_Half = tuple[list[Pool], Numbers]
"""The triples' clips of each modality, and the triples' labels (B,)."""


def _once(
    clips: Mapping[str, Pool], people: Judgements, count: int, rng: np.random.Generator
) -> dict[tuple[str, str, str], dict[str, float]]:
    (parts, whole), (others, target) = _halves(clips, people, count, rng)
    seed = int(rng.integers(2**31))
    out, fused = {}, dict[str, tuple[list[Numbers], list[Numbers]]]()
    for name, ours, theirs in zip(MODALITIES, parts, others, strict=True):
        made = generate(ours.vector, whole, ours.group, seed=seed, limit=LIMIT).label
        labels = {"copied": whole, "ulag": made, "own": ours.label}
        conflict = (ours.label * whole < 0) & (np.abs(ours.label) >= BEYOND)
        for kind, label in labels.items():
            if kind != "own":
                right = np.sign(label) == np.sign(ours.label)
                out["labels", kind, name] = _figures(label, ours.label) | {
                    "conflict": float(right[conflict].mean()) if conflict.any() else np.nan
                }
            seen, new = _head(ours, label, theirs)
            out["head", kind, name] = _figures(new, theirs.label)
            for scores, one in zip(fused.setdefault(kind, ([], [])), (seen, new), strict=True):
                scores.append(one)
    for kind, (seen_M, new_M) in fused.items():
        weights = np.linalg.lstsq(_columns(seen_M), whole, rcond=None)[0]
        out["fused", kind, "all"] = _figures(_columns(new_M) @ weights, target)
    return out


def _halves(
    clips: Mapping[str, Pool], people: Judgements, count: int, rng: np.random.Generator
) -> tuple[_Half, _Half]:
    """Draw triples of one half of the people, and of the other."""
    halves: tuple[list[Pool], list[Pool]] = ([], [])
    for name in MODALITIES:
        pool = clips[name]
        first = rng.permutation(pool.group.max() + 1)[pool.group] % 2 == 0
        halves[0].append(pool.of_rows(np.flatnonzero(first)))
        halves[1].append(pool.of_rows(np.flatnonzero(~first)))
    one, two = (_drawn(half, people, count, rng) for half in halves)
    return one, two


def _drawn(
    pools: Sequence[Pool], people: Judgements, count: int, rng: np.random.Generator
) -> _Half:
    wanted = people.labels.double().numpy()[rng.integers(len(people.labels), size=count)]
    parts = []
    for pool, column in zip(pools, wanted.T, strict=True):
        rows = np.zeros(count, np.int64)
        for value in np.unique(column):
            distance = np.abs(pool.label - value)
            near = np.flatnonzero(distance <= distance.min() + NEAR)
            here = column == value
            rows[here] = rng.choice(near, int(here.sum()))
        parts.append(pool.of_rows(rows))
    own = torch.from_numpy(np.stack([part.label for part in parts], axis=1)).float()
    whole = people.law.of(own, torch.ones(len(MODALITIES), dtype=torch.bool))
    return parts, whole.double().numpy()


def _head(ours: Pool, label: Numbers, theirs: Pool) -> tuple[Numbers, Numbers]:
    """Return what a ridge says that was fitted on our clips: of ours, and of theirs."""
    line = fit_ridge(
        torch.from_numpy(ours.vector), torch.from_numpy(label), [""] * len(label), STRENGTH
    )
    weight, bias = line.weight.double().numpy(), float(line.bias)
    return ours.vector @ weight + bias, theirs.vector @ weight + bias


def _columns(scores_M: Sequence[Numbers]) -> Numbers:
    return np.column_stack([*scores_M, np.ones(len(scores_M[0]))])


def _figures(made: Numbers, truth: Numbers) -> dict[str, float]:
    return {
        "Corr": float(np.corrcoef(made, truth)[0, 1]),
        "MAE": float(np.abs(made - truth).mean()),
        "sign": float((np.sign(made) == np.sign(truth)).mean()),
    }
