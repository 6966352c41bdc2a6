"""Generated labels against human ones: the figures, the baselines, and who sees what."""

import math
from dataclasses import replace

import numpy as np
import pytest

from support.human_clips import clips
from support.learnable_data import quiet
from tamulag.models.bench.label_agreement import against, baselines, compare, generate


def test_figures_against_a_hand_count() -> None:
    """Sign has three values; change is what was changed against what should have been."""
    clip = np.array([1.0, -1.0, 0.0, 1.0])
    human = np.array([0.5, 0.0, 0.0, -1.0])
    found = compare(np.array([0.5, 0.0, 0.0, 1.0]), human, clip)
    assert found["MAE"] == 0.5
    assert found["sign"] == 0.75
    assert found["change"] == pytest.approx(np.corrcoef([-0.5, 1, 0, 0], human - clip)[0, 1])


def test_copying_changes_nothing() -> None:
    """So its change has no correlation, and bounding beats it."""
    rows = {(row.labels, row.modality): row.figures for row in baselines(clips(1))}
    assert math.isnan(rows["copied", "text"]["change"])
    assert rows["bounded", "text"]["MAE"] < rows["copied", "text"]["MAE"]
    assert rows["zero", "audio"]["MAE"] == pytest.approx(
        np.mean([abs(clip.unimodal["audio"]) for clip in clips(1)])
    )


def test_training_never_sees_human_labels() -> None:
    """Other human labels, the same generated ones."""
    train, valid = clips(1), clips(2)
    wrong = [replace(c, unimodal=dict.fromkeys(c.unimodal, 0.0)) for c in train]
    made = [generate(rows, valid, "both", 1, epochs=2, progress=quiet) for rows in (train, wrong)]
    np.testing.assert_array_equal(made[0], made[1])
    assert made[0].shape == (40, 3)


def test_each_generator_has_its_rows() -> None:
    """Text alone has one row, a simulation three; intervals with two seeds."""
    rows = against(
        clips(1),
        clips(2),
        kinds=("ulgm",),
        snrs=(0.0,),
        seeds=(1, 2),
        epochs=2,
        log=quiet,
        progress=quiet,
    )
    made = [(row.modality, row.snr) for row in rows if row.labels == "ulgm"]
    assert made == [("text", None), ("text", 0.0), ("audio", 0.0), ("vision", 0.0)]
    assert all(row.interval.keys() == row.figures.keys() for row in rows if row.labels == "ulgm")


def test_labels_out_of_fold_are_nearer_to_people() -> None:
    """Text that shows what it alone says: Corr above and MAE below a copy's, without a training."""
    train = clips(1, count=200)
    rows = against(
        train, [], kinds=("ulag",), snrs=(), seeds=(1, 2), epochs=2, log=quiet, progress=quiet
    )
    found = {row.labels: row.figures for row in rows if row.modality == "text"}
    assert found["ulag"]["Corr"] > found["copied"]["Corr"] + 0.05
    assert found["ulag"]["MAE"] < found["copied"]["MAE"]


def test_labels_of_the_release_are_bounded() -> None:
    """|y_s| <= |y|, whatever was trained, in the release's form."""
    train = clips(1)
    made = generate(train, clips(2), "ulag_release", 1, epochs=2, progress=quiet)
    assert (np.abs(made) <= np.abs([[c.label] for c in train]) + 1e-6).all()
