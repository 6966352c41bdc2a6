"""Pictures of a run: made of its folder alone, without a display."""

from pathlib import Path

import pytest

from support.learnable_data import quiet, recipe, write
from tamulag.models.data.clips import DataError
from tamulag.models.training.plots import plot
from tamulag.models.training.train_joint import load_splits
from tamulag.models.training.train_seeds import train_seeds


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run of two seeds whose data are gone."""
    folder = tmp_path_factory.mktemp("plot")
    path = write(folder, rows={"train": 24, "valid": 12})
    chosen = recipe(path).model_copy(update={"seeds": [1, 2]})
    train_seeds(chosen, load_splits(chosen), folder / "run", log=quiet, progress=quiet)
    path.unlink()
    return folder / "run"


@pytest.mark.parametrize("part", ["", "seed-2"])
def test_pictures_are_drawn(run: Path, tmp_path: Path, part: str) -> None:
    """Of a run, and of one of its seeds: three PNGs that hold more than one colour."""
    from matplotlib.image import imread

    paths = plot(run / part, tmp_path / "figures")
    assert [path.name for path in paths] == ["curves.png", "labels.png", "attention.png"]
    for path in paths:
        picture = imread(path)
        assert picture.shape[0] > 200
        assert picture.std() > 0.01


def test_folder_without_a_run_is_told(tmp_path: Path) -> None:
    """With what is expected."""
    with pytest.raises(DataError, match=r"runs/NAME"):
        plot(tmp_path, tmp_path / "figures")


def test_damaged_run_is_told(run: Path, tmp_path: Path) -> None:
    """Not a traceback."""
    for path in (run / "seed-1").glob("*.csv"):
        (tmp_path / path.name).write_text("epoch\nnone\n")
    with pytest.raises(DataError, match="train it again"):
        plot(tmp_path, tmp_path / "figures")
