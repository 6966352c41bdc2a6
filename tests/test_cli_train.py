"""The verbs of joint training, as people type them."""

import json
from itertools import chain
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from learnable import toml, write
from tamulag.models.checkpoint import load
from tamulag.models.data import DataError
from tamulag.streamer.cli import app


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a training file that has been trained for two epochs."""
    folder = tmp_path_factory.mktemp("cli")
    packed = write(folder, rows={"train": 24, "valid": 12})
    text = toml(packed, 'ablate.fusion = ["concat"]', epochs=2)
    (folder / "train.toml").write_text(text, encoding="utf-8")
    done = train(folder)
    assert done.exit_code == 0, done.output
    return folder


def train(folder: Path, *more: str) -> Result:
    paths = (str(folder / name) for name in ("train.toml", "out.safetensors", "runs"))
    options = zip(("--config", "--out", "--runs"), paths, strict=True)
    return run("train", *chain.from_iterable(options), "--json", *more)


def test_joint_file_trains_the_four_tasks(folder: Path) -> None:
    """Figures as one JSON object; the checkpoint loads."""
    done = train(folder, "--resume")
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["valid.n"] == 12
    assert {"valid.MAE", "valid.Corr", "valid.text.MAE"} <= figures.keys()
    assert load(str(folder / "out.safetensors"))[1].trained["sentiment"]


def test_run_is_not_written_over(folder: Path) -> None:
    """Without --resume the error says what to do."""
    assert isinstance(train(folder).exception, DataError)


def test_checkpoint_of_another_kind_is_refused(folder: Path) -> None:
    """At once, not when hours of training are done: the run's folder is not begun."""
    done = run("train", "--config", folder / "train.toml", "--out", "x.pt")
    assert done.exit_code == 2
    assert "--out x.pt: give a .safetensors file" in done.output


def test_grid_is_printed_as_a_table(folder: Path) -> None:
    """The same that lies in table.md."""
    out = folder / "ablation"
    done = run("ablate", "--config", folder / "train.toml", "--out", out)
    assert done.exit_code == 0, done.output
    assert done.stdout == (out / "table.md").read_text(encoding="utf-8")
    assert done.stdout.startswith("| tam | fusion | labels | residual | valid.MAE |")


def test_plot_names_the_pictures(folder: Path) -> None:
    """One path per line."""
    done = run("plot", folder / "runs" / "tiny", "--out", folder / "figures")
    assert [Path(line).name for line in done.stdout.split()] == [
        "curves.png",
        "labels.png",
        "attention.png",
    ]
    assert all(Path(line).stat().st_size > 1000 for line in done.stdout.split())


def test_crossval_names_the_table_that_is_missing() -> None:
    """The shipped text head is trained on CSVs, which have no groups."""
    config = Path(__file__).parent.parent / "configs" / "train" / "default.toml"
    done = run("crossval", "--config", config, "--head", "text")
    assert isinstance(done.exception, DataError)
    assert "no table [text] of feature files" in str(done.exception)
