"""Cross-validation by groups."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tamulag.models.data.clips import VARIED, Clip, DataError, read_clips, write_clips
from tamulag.models.nn.config import preset
from tamulag.models.training.cross_validation import crossval

RECIPE = """
[tune]
train = []
valid = []
data = ""
[audio]
train = ["{0}/audio.safetensors"]
valid = ["{0}/audio.safetensors"]
valid_groups = ["1"]
data = "made voices"
epochs = 2
rate = 5e-3
batch = 8
[vision]
train = []
valid = []
data = ""
epochs = 1
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a training file on voices of six speakers, that show each label."""
    rng = np.random.default_rng(0)
    dim, clips = preset("stream").audio.dim, []
    for row in range(60):
        label = float(rng.uniform(-3, 3))
        values = (0.1 * rng.standard_normal((6, dim)) + label).astype(np.float32)
        clips.append(Clip(label, str(row % 6), {"audio": values}, {"audio": np.arange(6)}))
    write_clips(tmp_path / "audio.safetensors", clips, about="a test")
    path = tmp_path / "train.toml"
    path.write_text(RECIPE.format(tmp_path), encoding="utf-8")
    return path


def test_folds_measure_all_clips_of_their_groups(config: Path) -> None:
    """Means over folds of speakers that were not trained on, and better than guessing."""
    report = crossval(config, "audio", 3, lambda _: None)
    rows = report["rows"]
    assert isinstance(rows, list)
    assert [row["groups"] for row in rows] == [["0", "1"], ["2", "3"], ["4", "5"]]
    assert [row["n"] for row in rows] == [20, 20, 20]
    assert report["n"] == 60
    assert report["Corr"] == pytest.approx(np.mean([row["Corr"] for row in rows]))
    assert min(row["Corr"] for row in rows) > 0.5
    assert "Corr_heard" in report


def test_a_corpus_can_be_left_out(config: Path) -> None:
    """Two files are two corpora: each is measured by a head that was trained on the other."""
    folder = config.parent
    (folder / "more.safetensors").write_bytes((folder / "audio.safetensors").read_bytes())
    one = f'"{folder}/audio.safetensors"'
    text = config.read_text(encoding="utf-8")
    config.write_text(
        text.replace(f"train = [{one}", f'train = [{one}, "{folder}/more.safetensors"')
    )
    rows = crossval(config, "audio", 2, lambda _: None, by="corpora")["rows"]
    assert isinstance(rows, list)
    assert [(row["groups"], row["n"]) for row in rows] == [(["audio"], 60), (["more"], 60)]


def test_varied_clips_are_trained_on_and_never_measured(config: Path) -> None:
    """Copies with labels of the other sign spoil the head, but not the count."""
    before = crossval(config, "audio", 2, lambda _: None)
    path = config.parent / "audio.safetensors"
    clips = read_clips(path)
    copies = [replace(clip, label=-clip.label, mode=VARIED) for clip in clips for _ in range(3)]
    write_clips(path, [*clips, *copies], about="a test")
    after = crossval(config, "audio", 2, lambda _: None)
    assert (before["n"], after["n"]) == (60, 60)
    assert before["Corr"] > 0.5
    assert after["Corr"] < 0


def test_each_corpus_has_figures_of_its_own(config: Path) -> None:
    """Of clips that are left out, and of held-out people of corpora that were heard."""
    path = config.parent / "audio.safetensors"
    clips = [replace(c, corpus="odd" if int(c.group) % 2 else "even") for c in read_clips(path)]
    calm = replace(clips[0], label=0.0, corpus="calm", group="7")
    write_clips(path, [*clips, calm, calm], about="a test")
    report = crossval(config, "audio", 3, lambda _: None, by="corpora")
    of = report["of_corpora"]
    assert {name: of[name]["n"] for name in of} == {"calm": 2, "even": 30, "odd": 30}
    assert of["odd"]["Corr"] > 0.5
    assert np.isnan(of["calm"]["Corr"])
    assert of["calm"]["deviation"] == 0
    assert (abs(of["calm"]["mean"]) > 1) == (of["calm"]["beyond_1"] == 1)
    assert np.isfinite(report["Corr"])
    held = {row["groups"][0]: row.get("held_out") for row in report["rows"]}
    assert held["odd"] is None
    assert held["calm"]["odd"]["n"] == held["even"]["odd"]["n"] == 10
    assert held["calm"].keys() == {"odd"}
    by_groups = crossval(config, "audio", 7, lambda _: None)
    assert "held_out" not in by_groups["rows"][0]
    assert by_groups["of_corpora"]["even"]["n"] == 30


def test_head_without_feature_files_is_refused(config: Path) -> None:
    """A text head that is trained on CSVs has no groups."""
    with pytest.raises(DataError, match=r"no table \[text\] of feature files"):
        crossval(config, "text", 2, lambda _: None)


def test_joint_training_file_is_refused(tmp_path: Path) -> None:
    """The message has the kind of file that is wanted, and where one is."""
    path = tmp_path / "joint.toml"
    path.write_text('kind = "joint"\nname = "mine"\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"heads apart, with tables such as \[audio\]: e\.g\. conf"):
        crossval(path, "audio", 2, lambda _: None)
