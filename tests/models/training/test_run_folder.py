"""A run folder: everything to go on from, nothing of another run."""

import csv
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from support.learnable_data import quiet, recipe, write
from tamulag.models.data.clips import DataError
from tamulag.models.training.joint_recipe import JointRecipe
from tamulag.models.training.run_folder import (
    LAST,
    Journal,
    load_last,
    open_curves,
    save_last,
    write_tables,
)
from tamulag.models.training.train_joint import Task, build, load_splits, train_epoch

JOURNAL = Journal([{"epoch": 1, "valid.MAE": 0.5}], 1, [0.0, 0.1, 0.2], [[[1.0, 0.5, 0.5, -0.5]]])


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> JointRecipe:
    return recipe(write(tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="module")
def task(chosen: JointRecipe) -> Task:
    """Return a task with two epochs behind it."""
    task = build(chosen, load_splits(chosen)["train"], 1)
    for epoch in (1, 2):
        train_epoch(task, epoch, quiet)
    return task


def test_saved_run_goes_on_to_the_bit(task: Task, chosen: JointRecipe, tmp_path: Path) -> None:
    """Weights, moments of Adam, labels and centres: the next epoch is the same."""
    save_last(tmp_path, task, JOURNAL, chosen)
    other = build(chosen, task.corpus, 1)
    assert load_last(tmp_path, other, chosen) == JOURNAL
    train_epoch(task, 3, quiet)
    train_epoch(other, 3, quiet)
    ours, theirs = task.tensors(), other.tensors()
    assert ours.keys() == theirs.keys()
    assert {name.partition(".")[0] for name in ours} == {"net", "optimiser", "labels"}
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_every_trained_tensor_is_in_it(task: Task) -> None:
    """Confidence nets and experts too, and two moments of each parameter."""
    names = task.tensors()
    parameters = [name for name, _ in task.net.named_parameters()]
    assert {f"net.{name}" for name in parameters} <= set(names)
    assert any("confidence" in name for name in parameters)
    assert sum("exp_avg" in name for name in names) == 2 * len(parameters)


def test_fresh_folder_begins_at_nothing(task: Task, chosen: JointRecipe, tmp_path: Path) -> None:
    """No file, no past."""
    assert load_last(tmp_path, task, chosen).epoch == 0


def test_other_settings_are_refused(task: Task, chosen: JointRecipe, tmp_path: Path) -> None:
    """The message names them; more epochs are no other settings."""
    save_last(tmp_path, task, JOURNAL, chosen)
    load_last(tmp_path, task, chosen.model_copy(update={"epochs": 99, "patience": 3}))
    with pytest.raises(DataError, match="settings of batch, clip"):
        load_last(tmp_path, task, chosen.model_copy(update={"batch": 9, "clip": 2.0}))


def test_damaged_file_is_told(task: Task, chosen: JointRecipe, tmp_path: Path) -> None:
    """Not a traceback: the file and the remedy."""
    (tmp_path / LAST).write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00nonsense")
    with pytest.raises(DataError, match="remove its folder"):
        load_last(tmp_path, task, chosen)


def test_tables_hold_each_epoch_once(tmp_path: Path) -> None:
    """Writing them again adds nothing; a key that came later has its column."""
    history = [{"epoch": 1.0}, {"epoch": 2.0, "test.MAE": 0.5}]
    for _ in range(2):
        write_tables(tmp_path, replace(JOURNAL, history=history, labels=JOURNAL.labels * 2))
    with (tmp_path / "metrics.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["epoch", "test.MAE"], ["1.0", ""], ["2.0", "0.5"]]
    with (tmp_path / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["clip"], row["vision"]) for row in rows] == [
        ("1", "0", "-0.5"),
        ("2", "0", "-0.5"),
    ]


def test_curves_reach_tensorboard(tmp_path: Path) -> None:
    """Its event file holds the figures under their names."""
    pytest.importorskip("tensorboard", reason="install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with open_curves(tmp_path, 0, quiet) as add:
        add({"valid.MAE": 0.5}, 1)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("valid/MAE")] == [(1, 0.5)]


def test_without_tensorboard_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training does not need it."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    lines: list[str] = []
    with open_curves(tmp_path, 0, lines.append) as add:
        add({"valid.MAE": 0.5}, 1)
    assert len(lines) == 1
    assert "CSV only" in lines[0]
    assert not list(tmp_path.iterdir())
