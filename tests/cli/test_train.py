"""The verbs of joint training, as people type them."""

import json
from itertools import chain
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from support.learnable_data import toml, write
from tamulag.models.data.clips import DataError
from tamulag.models.runtime.checkpoint import load
from tamulag.models.training.run_folder import LAST
from tamulag.streamer.cli.main import app


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
    config = Path(__file__).parents[2] / "configs" / "train" / "default.toml"
    done = run("crossval", "--config", config, "--head", "text")
    assert isinstance(done.exception, DataError)
    assert "no table [text] of feature files" in str(done.exception)


@pytest.mark.parametrize("option", ["--only audio", "--base default"])
def test_options_of_heads_are_refused_in_a_joint_training(folder: Path, option: str) -> None:
    """All four tasks would be trained, whatever was asked for."""
    done = train(folder, *option.split())
    assert done.exit_code == 2
    assert "leave it out" in done.output
    assert option.split(maxsplit=1)[0] in done.output


TUNE = """[tune]
train = ["{0}"]
valid = ["{0}"]
data = "made"
layers = 1
epochs = 2
batch = 2
recurrent = false
[fusion]
steps = 1
"""
SENTENCES = "text,label,mode\ngood,2,train\nbad,-2,train\nfine,1,valid\npoor,-1,valid\nso,0,valid\n"


@pytest.fixture
def tune(tmp_path: Path) -> Path:
    """Return a training file of words alone."""
    (tmp_path / "texts.csv").write_text(SENTENCES, encoding="utf-8")
    path = tmp_path / "words.toml"
    path.write_text(TUNE.format((tmp_path / "texts.csv").as_posix()), encoding="utf-8")
    return path


def tuned(path: Path, *more: str) -> Result:
    folder = path.parent
    out = folder / "words.safetensors"
    return run("train", "--config", path, "--out", out, "--runs", folder / "runs", *more)


@pytest.mark.parametrize("more", [["--only", "sentiment"], ["--only", "sentiment", "--resume"]])
def test_resume_is_refused_where_nothing_is_stored(tune: Path, more: list[str]) -> None:
    """Only the text encoder's training is kept to go on from."""
    done = tuned(tune, *more)
    assert done.exit_code == 2
    assert "leave it out" in done.output


def test_resume_with_nothing_there_is_refused(tune: Path) -> None:
    """It does not begin anew in silence."""
    error = tuned(tune, "--resume").exception
    assert isinstance(error, DataError)
    assert "there is no" in str(error)


def test_a_stopped_training_of_words_goes_on(tune: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped when the text is done: the same file as at once, and what was kept is removed."""
    assert tuned(tune).exit_code == 0
    out, last = tune.parent / "words.safetensors", tune.parent / "runs" / "words-text" / LAST
    at_once = out.read_bytes()
    assert not last.exists()

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tamulag.models.training.train_heads.copy_head", stopped)
        assert tuned(tune).exit_code != 0
    assert last.exists()
    error = tuned(tune).exception
    assert isinstance(error, DataError)
    assert "give --resume to go on" in str(error)
    done = tuned(tune, "--resume")
    assert done.exit_code == 0, done.output
    assert "goes on after 2 of 2 epochs" in done.output
    assert out.read_bytes() == at_once
    assert not last.exists()
