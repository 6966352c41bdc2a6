"""Seeds, resuming, selection: the same numbers, chosen by the validation rows alone."""

import math
import random
import shutil
from pathlib import Path
from statistics import mean, stdev

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from support.learnable_data import quiet, recipe, toml, write
from tamulag.models.data.clips import DataError
from tamulag.models.runtime.checkpoint import load
from tamulag.models.training.joint_recipe import LabelTable
from tamulag.models.training.progress import Record
from tamulag.models.training.run_folder import BEST, LAST, settings
from tamulag.models.training.train_joint import load_splits
from tamulag.models.training.train_seeds import (
    forget,
    mean_interval,
    student,
    summary,
    train,
    train_seed,
)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("seeds"))


def trained(folder: Path, packed: Path, *lines: str, resume: bool = False) -> Record:
    path = folder / "train.toml"
    path.write_text(toml(packed, *lines, seeds="[1, 2]"), encoding="utf-8")
    runs = folder / "runs"
    return train(
        path, folder / "out.safetensors", runs=runs, resume=resume, log=quiet, progress=quiet
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, packed: Path) -> tuple[Path, Record]:
    """Train both seeds once; return the folder, of which who changes it takes a copy."""
    folder = tmp_path_factory.mktemp("both")
    return folder, trained(folder, packed)


def same(one: Path, other: Path) -> bool:
    ours, theirs = load_file(one), load_file(other)
    assert ours.keys() == theirs.keys()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("labels", ["both", "ulag"])
def test_stopped_run_goes_on_to_the_bit(packed: Path, tmp_path: Path, labels: str) -> None:
    """Stopped after epoch 1, with other random numbers drawn in between: all tensors are equal."""
    chosen = recipe(packed, f'model.labels = "{labels}"')
    splits = load_splits(chosen)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train_seed(chosen, splits, 1, whole, log=quiet, progress=quiet)

    def stop(line: str) -> None:
        if "epoch 1/" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_seed(chosen, splits, 1, cut, log=stop, progress=quiet)
    torch.rand(7)
    train_seed(chosen, splits, 1, cut, log=quiet, progress=quiet)
    assert same(whole / LAST, cut / LAST)
    assert same(whole / BEST, cut / BEST)


def test_run_of_the_words_old_meaning_is_refused(packed: Path, tmp_path: Path) -> None:
    """What was begun with the release's labels does not go on with others in silence."""
    chosen = recipe(packed, 'model.labels = "ulag_release"', epochs=1)
    splits = load_splits(chosen)
    train_seed(chosen, splits, 1, tmp_path, log=quiet, progress=quiet)
    with safe_open(tmp_path / LAST, framework="pt") as file:
        meta = file.metadata()["tamulag"].replace('"ulag_release"', '"ulag"')
    save_file(load_file(tmp_path / LAST), tmp_path / LAST, metadata={"tamulag": meta})
    now = recipe(packed, 'model.labels = "ulag"', epochs=2)
    with pytest.raises(DataError, match="with other settings of labels, ulag"):
        train_seed(now, splits, 1, tmp_path, log=quiet, progress=quiet)


def test_runs_from_before_go_on(packed: Path) -> None:
    """Their settings have the least weight as a number, which they still have."""
    before = LabelTable(floor=0.0).model_dump(mode="json")
    assert settings(recipe(packed))["labels"] == before
    assert "ulag" not in settings(recipe(packed))


def test_finished_run_is_not_trained_again(packed: Path, tmp_path: Path) -> None:
    """Resuming returns its figures."""
    chosen = recipe(packed)
    splits = load_splits(chosen)
    first = train_seed(chosen, splits, 1, tmp_path, log=quiet, progress=quiet)
    lines: list[str] = []
    assert train_seed(chosen, splits, 1, tmp_path, log=lines.append, progress=quiet) == first
    assert not [line for line in lines if "epoch" in line]


def test_training_stops_when_nothing_gets_better(packed: Path, tmp_path: Path) -> None:
    """With rates of next to nothing: after `patience` epochs."""
    groups = {"rate": 1e-12, "decay": 0.0}
    chosen = recipe(packed, epochs=50)
    slow = {n: getattr(chosen, n).model_copy(update=groups) for n in ("audio", "vision", "other")}
    chosen = chosen.model_copy(update={**slow, "patience": 2})
    lines: list[str] = []
    train_seed(chosen, load_splits(chosen), 1, tmp_path, log=lines.append, progress=quiet)
    assert len([line for line in lines if "seed 1 epoch" in line]) == 3


def test_seeds_are_summed_up_and_the_best_is_kept(both: tuple[Path, Record]) -> None:
    """Mean and interval of each figure; the checkpoint is that of the lowest valid MAE."""
    made, figures = both
    folder = made / "runs" / "tiny"
    maes = [load(str(folder / f"seed-{s}" / BEST))[1].figures["valid.MAE"] for s in (1, 2)]
    assert maes[0] != maes[1]
    assert figures["valid.MAE"] == pytest.approx(mean(maes))
    assert figures["valid.MAE.interval"] == pytest.approx(
        12.7062 * stdev(maes) / math.sqrt(2), rel=1e-4
    )
    best = folder / f"seed-{1 + maes.index(min(maes))}"
    assert (made / "out.safetensors").read_bytes() == (best / BEST).read_bytes()
    model, card = load(str(made / "out.safetensors"))
    assert card.trained["sentiment"]
    assert set(card.interval) >= {"text", "text+audio+vision"}
    assert model.config.audio.tam == "softmax"


def test_a_run_is_not_written_over(both: tuple[Path, Record], packed: Path, tmp_path: Path) -> None:
    """The second time needs --resume, and then gives the same figures."""
    made, first = both
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    with pytest.raises(DataError, match="--resume"):
        trained(tmp_path, packed)
    assert trained(tmp_path, packed, resume=True) == first


def test_test_rows_choose_nothing(tmp_path: Path) -> None:
    """Noise for test labels changes the test figures, not a bit of the checkpoint."""
    figures = []
    for spoiled in ("", "test"):
        folder = tmp_path / f"with{spoiled}"
        folder.mkdir()
        path = write(folder, spoiled=spoiled).rename(tmp_path / "packed.pkl")
        figures.append(trained(folder, path, "data.test = true"))
    assert same(tmp_path / "with" / "out.safetensors", tmp_path / "withtest" / "out.safetensors")
    assert figures[0]["valid.MAE"] == figures[1]["valid.MAE"]
    assert figures[0]["test.MAE"] < figures[1]["test.MAE"]


def test_test_rows_are_not_read_unless_asked(packed: Path) -> None:
    """The training has no way to them."""
    assert set(load_splits(recipe(packed))) == {"train", "valid"}


def test_head_that_never_trained_says_so(packed: Path, tmp_path: Path) -> None:
    """Without unimodal labels no unimodal task has a weight, and there is no figure of one."""
    figures = trained(tmp_path, packed, 'model.labels = "none"')
    assert not [key for key in figures if key.startswith(("valid.text", "valid.audio"))]
    _, card = load(str(tmp_path / "out.safetensors"))
    assert card.trained == {"sentiment": True, "text": False, "audio": False, "vision": False}


def test_diverged_run_is_refused(packed: Path, tmp_path: Path) -> None:
    """Rather than a checkpoint of NaN."""
    chosen = recipe(packed)
    splits = load_splits(chosen)
    splits["train"].values["text"][0][:] = math.nan
    with pytest.raises(DataError, match="lower the rates"):
        train_seed(chosen, splits, 1, tmp_path, log=quiet, progress=quiet)


@pytest.mark.parametrize(
    ("freedom", "t"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (30, 2.0423), (100, 1.9840)],
)
def test_quantiles_are_those_of_the_tables(freedom: int, t: float) -> None:
    """Student's t at 97.5 %."""
    assert student(freedom) == pytest.approx(t, abs=1e-4)


def test_interval_covers_the_mean_as_often_as_it_says() -> None:
    """Of 4 normal values, 95 of 100 times."""
    rng = random.Random(1)
    draws = [[rng.gauss(1, 2) for _ in range(4)] for _ in range(2000)]
    covered = [abs(mean(values) - 1) <= mean_interval(values) for values in draws]
    assert mean(covered) == pytest.approx(0.95, abs=0.015)


def test_one_seed_has_no_interval() -> None:
    """Numbers of rows have none with several; what a seed lacks is left out."""
    assert summary([{"valid.MAE": 0.5}]) == {"valid.MAE": 0.5}
    assert not summary([{"valid.text.MAE": 0.5}, {}])
    several = summary([{"valid.MAE": 0.5, "valid.n": 3}, {"valid.MAE": 0.7, "valid.n": 3}])
    assert set(several) == {"valid.MAE", "valid.MAE.interval", "valid.n"}


def test_finished_run_can_be_made_smaller(both: tuple[Path, Record], tmp_path: Path) -> None:
    """The checkpoint stays."""
    shutil.copytree(both[0], tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "runs" / "tiny"
    forget(folder)
    assert not list(folder.glob(f"*/{LAST}"))
    assert len(list(folder.glob(f"*/{BEST}"))) == 2


def test_nothing_to_resume_is_refused(packed: Path, tmp_path: Path) -> None:
    """--resume with a wrong folder does not start again in silence."""
    with pytest.raises(DataError, match=r"--resume: there is no .*tiny to go on with"):
        trained(tmp_path, packed, resume=True)
