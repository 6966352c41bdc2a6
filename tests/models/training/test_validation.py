"""Figures of a corpus in training are those of the checkpoint later."""

from pathlib import Path

import numpy as np
import pytest
import torch

from support.learnable_data import quiet, recipe, write
from tamulag.models.data.corpus import Corpus
from tamulag.models.data.mmsa_pickle import read_packed
from tamulag.models.evaluation.evaluate import estimates
from tamulag.models.training.train_joint import Task, build, load_splits, train_epoch
from tamulag.models.training.validation import attention, estimate, figures, intervals


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("score"))


@pytest.fixture(scope="module")
def splits(packed: Path) -> dict[str, Corpus]:
    return load_splits(recipe(packed))


@pytest.fixture(scope="module")
def task(packed: Path, splits: dict[str, Corpus]) -> Task:
    task = build(recipe(packed), splits["train"], 1)
    for epoch in range(1, 5):
        train_epoch(task, epoch, quiet)
    return task


def test_estimates_are_those_of_the_evaluation(
    task: Task, splits: dict[str, Corpus], packed: Path
) -> None:
    """In the order of the rows, whatever order they were scored in."""
    found = estimate(task, splits["valid"])
    clips = read_packed(packed)["valid"].clips()
    theirs, present = estimates(task.net.model.eval(), clips, "all")
    np.testing.assert_allclose(found.sentiment.numpy(), theirs, atol=1e-5)
    audio, _ = estimates(task.net.model, clips, "audio")
    np.testing.assert_allclose(found.heads[:, 1].numpy(), audio, atol=1e-5)
    assert present.all()
    assert found.present.all()


def test_untrained_head_has_no_figure(task: Task, splits: dict[str, Corpus]) -> None:
    """Its number would be noise."""
    found = estimate(task, splits["valid"])
    keys = figures(found, splits["valid"], "mosi", heads=["text"]).keys()
    assert [key for key in keys if "." in key] == ["text.MAE"]


def test_mae_counts_each_row_once(task: Task, splits: dict[str, Corpus]) -> None:
    """Not each batch: the last one may be small."""
    valid = splits["valid"]
    found = estimate(task, valid)
    record = figures(found, valid, "mosi")
    expected = (found.sentiment - valid.labels).abs().mean()
    assert record["MAE"] == pytest.approx(float(expected), abs=1e-6)
    assert {"text.MAE", "audio.MAE", "vision.MAE"} <= record.keys()


def test_intervals_cover_nine_of_ten(task: Task, splits: dict[str, Corpus]) -> None:
    """Of the rows they were taken from at least nine tenths, with every subset of modalities."""
    valid = splits["valid"]
    found = estimate(task, valid)
    half = intervals(task, found, valid)
    assert len(half) == 7
    inside = (found.sentiment - valid.labels).abs() <= half["text+audio+vision"] + 1e-4
    assert 0.9 <= float(inside.float().mean()) < 1
    assert half["text+audio+vision"] < half["audio"]


def test_too_few_rows_have_no_interval(task: Task, splits: dict[str, Corpus]) -> None:
    """Of eight residuals none is the 90 % quantile with a guarantee."""
    valid = splits["valid"]
    few = valid.select(range(8))
    assert intervals(task, estimate(task, few), few) == {}


def test_attention_of_few_clips_sums_to_one(task: Task, splits: dict[str, Corpus]) -> None:
    """From the most negative to the most positive, one weight per valid tick."""
    shown = attention(task, splits["valid"])
    labels = [clip["label"] for clip in shown]
    assert labels == sorted(labels)  # type: ignore[type-var]
    for clip in shown:
        for name in ("text", "audio", "vision"):
            part = clip[name]
            assert isinstance(part, dict)
            assert len(part["time"]) == len(part["weight"]) > 1
            assert sum(part["weight"]) == pytest.approx(1, abs=1e-5)


def test_scoring_changes_nothing(task: Task, splits: dict[str, Corpus]) -> None:
    """Twice the same, and no weight moves."""
    before = {name: tensor.clone() for name, tensor in task.tensors().items()}
    first, second = (estimate(task, splits["valid"]).sentiment for _ in range(2))
    assert torch.equal(first, second)
    after = task.tensors()
    assert all(torch.equal(before[name], after[name]) for name in before)
