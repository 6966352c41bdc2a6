"""Triples whose parts' own labels are known: what is drawn, and what is found of it."""

import numpy as np
import torch

from support.learnable_data import quiet
from tamulag.models.bench.judgement import Judgements, Law
from tamulag.models.bench.triple_labels import Pool, compare_triples

NAMES = ("text", "audio", "vision")


def pools(noise: float) -> dict[str, Pool]:
    """Return clips of 40 people whose vectors show their label."""
    out = {}
    for place, name in enumerate(NAMES):
        rng = np.random.default_rng(place)
        label = rng.uniform(-3, 3, 800)
        vector = label[:, None] * rng.standard_normal(6) + noise * rng.standard_normal((800, 6))
        out[name] = Pool(vector, label, rng.integers(40, size=800))
    return out


def people() -> Judgements:
    labels = torch.from_numpy(np.random.default_rng(9).uniform(-3, 3, (200, 3))).float()
    return Judgements(Law((0.3, 0.3, 0.4), 1.0, 200), labels.round(decimals=1))


def test_own_labels_are_found_where_vectors_show_them() -> None:
    """Above copies in each modality; a copy never has the sign of one in conflict."""
    rows = compare_triples(pools(0.5), people(), [1, 2], triples=400, log=quiet)
    found = {(row.what, row.labels, row.modality): row for row in rows}
    assert len(found) == 3 * (2 + 3) + 3
    for name in NAMES:
        copied, made = (found["labels", kind, name].figures for kind in ("copied", "ulag"))
        assert made["Corr"] > copied["Corr"] + 0.1
        assert made["MAE"] < copied["MAE"]
        assert copied["conflict"] == 0.0
        assert made["conflict"] > 0.05
        assert found["head", "own", name].figures["Corr"] > 0.95
    assert found["fused", "own", "all"].figures["Corr"] > 0.95
    assert all(row.interval.keys() == row.figures.keys() for row in rows)


def test_noise_gives_copies() -> None:
    """Where vectors say nothing, labels hardly move and a head knows nothing."""
    rows = compare_triples(pools(1e6), people(), [1], triples=300, log=quiet)
    found = {(row.what, row.labels, row.modality): row.figures for row in rows}
    for name in NAMES:
        copied, made = (found["labels", kind, name] for kind in ("copied", "ulag"))
        assert abs(made["Corr"] - copied["Corr"]) < 0.06
        assert abs(found["head", "ulag", name]["Corr"]) < 0.3
