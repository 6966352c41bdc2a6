"""The verbs of data: options, exit codes, what they print and write."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from support.command_line import call
from support.command_line import run as command
from support.figure_names import MOSI, SIMS
from support.sound_files import sound_file, tone
from support.speech import packaged, read
from tamulag.models import MODALITIES, ModelConfig, TamUlag
from tamulag.models.data.clips import VARIED, read_clips
from tamulag.models.runtime.checkpoint import Card, save
from tamulag.streamer.cli.data import bar, show
from tamulag.streamer.features.audio import AUDIO_DIM
from tamulag.streamer.features.vision import VISION_DIM
from tamulag.streamer.offline.extract import play, stack_inputs

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tamulag() -> Run:
    """Run the command line in this process; return exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code, out, err = call("tamulag", *arguments)
        return code, out, " ".join(err.split())

    return run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint of random weights that calls itself trained."""
    path = tmp_path_factory.mktemp("checkpoint") / "random.safetensors"
    torch.manual_seed(0)
    sizes = ModelConfig()
    audio, vision = replace(sizes.audio, dim=AUDIO_DIM), replace(sizes.vision, dim=VISION_DIM)
    model = TamUlag(replace(sizes, audio=audio, vision=vision)).eval()
    save(model, Card(trained=dict.fromkeys(("sentiment", *MODALITIES), True)), path)
    return path


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Return a folder of three pieces of speech with their table; the second has no text."""
    folder = tmp_path / "videos"
    folder.mkdir()
    speech = read(packaged("moonshine_voice", "assets/beckett.wav"))
    for second, name in enumerate("abc"):
        sound_file(folder / f"{name}.wav", speech[16000 * second : 16000 * (second + 1)])
    rows = ("file,label,text", "a.wav,-1.5,so bad", "b.wav,0.5,", "c.wav,2,good")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def texts(folder: Path, *rows: str) -> Path:
    path = folder / "texts.csv"
    path.write_text("\n".join(("text,label,mode", *rows)) + "\n")
    return path


def figures(told: tuple[int, str, str]) -> dict[str, float]:
    code, out, error = told
    assert code == 0, error
    found = json.loads(out.splitlines()[-1])
    assert isinstance(found, dict)
    return found


TEXTS = ("so good,1,train", "so bad,-1,valid", ",0,valid", "well,0.5,valid")


def test_texts_are_evaluated_by_the_text_head(
    tmp_path: Path, checkpoint: Path, tamulag: Run
) -> None:
    """One JSON object with the documented keys; a row without words counts as missing."""
    path = texts(tmp_path, *TEXTS)
    found = figures(tamulag("evaluate", "--checkpoint", checkpoint, "--data", path, "--json"))
    assert tuple(found) == MOSI
    assert (found["n"], found["missing"]) == (4, 1)


def test_rows_of_a_mode_in_the_form_of_sims(tmp_path: Path, checkpoint: Path, tamulag: Run) -> None:
    """`label.csv` of the field is measured as it is."""
    path = texts(tmp_path, *TEXTS)
    options = ("--metrics", "sims", "--mode", "valid", "--json")
    found = figures(tamulag("evaluate", "--checkpoint", checkpoint, "--data", path, *options))
    assert tuple(found) == SIMS
    assert found["n"] == 3


def test_anytime_adds_a_row_per_share(tmp_path: Path, checkpoint: Path, tamulag: Run) -> None:
    """The last row is what the object itself says."""
    path = texts(tmp_path, *TEXTS)
    options = ("--anytime", "--json")
    found = figures(tamulag("evaluate", "--checkpoint", checkpoint, "--data", path, *options))
    rows = found.pop("anytime")
    assert [row.pop("heard") for row in rows] == [0.2, 0.4, 0.6, 0.8, 1.0]  # type: ignore[attr-defined]
    assert rows[-1] == found  # type: ignore[index]


@pytest.mark.parametrize(("modality", "missing"), [("all", 0), ("text", 1), ("audio", 0)])
def test_media_files_are_evaluated_by_any_head(
    videos: Path, checkpoint: Path, tamulag: Run, modality: str, missing: int
) -> None:
    """Of three sounds one has no text."""
    options = ("--modality", modality, "--workers", 1, "--json", "--anytime")
    path = videos / "labels.csv"
    found = figures(tamulag("evaluate", "--checkpoint", checkpoint, "--data", path, *options))
    assert set(found) == {*MOSI, "anytime"}
    assert (found["n"], found["missing"]) == (3, missing)
    assert not list(videos.glob("*parts*"))


def test_nothing_to_measure_is_reported(videos: Path, checkpoint: Path, tamulag: Run) -> None:
    """No sound has a face: a figure would be that of zeros."""
    options = ("--modality", "vision", "--workers", 1, "--data", videos / "labels.csv")
    code, out, error = tamulag("evaluate", "--checkpoint", checkpoint, *options)
    assert (code, out) == (1, "")
    assert "none of 3 clips has anything for the head vision" in error


def test_default_of_media_files_is_the_fused_head(
    videos: Path, checkpoint: Path, tamulag: Run
) -> None:
    """Without an option the same numbers as with `--modality all`."""
    options = ("evaluate", "--checkpoint", checkpoint, "--data", videos / "labels.csv")
    found = [
        figures(tamulag(*options, "--workers", 1, "--json", *more))
        for more in ((), ("--modality", "all"), ("--modality", "audio"))
    ]
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_unreadable_file_is_reported_and_scores_by_its_text(
    videos: Path, checkpoint: Path, tamulag: Run
) -> None:
    """The others are measured all the same."""
    (videos / "a.wav").write_text("no sound")
    options = ("--workers", 1, "--json", "--data", videos / "labels.csv")
    told = tamulag("evaluate", "--checkpoint", checkpoint, *options)
    assert "a.wav" in told[2]
    assert "1 of 3 files could not be read" in told[2]
    assert figures(told)["missing"] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("evaluate", "--data", "no.csv"), 1, "no.csv"),
        (("evaluate", "--data", "no.csv", "--modality", "smell"), 2, "smell"),
        (("evaluate", "--data", "no.csv", "--metrics", "bleu"), 2, "bleu"),
        (("evaluate", "--data", "no.csv", "--workers", "0"), 2, "workers"),
        (("extract", ".", "--out", "x", "--corpus", "none"), 2, "corpus"),
        (("extract", ".", "--out", "x", "--corpus", "texts", "--vary", "1"), 2, "has no sound"),
        (("extract", ".", "--out", "x", "--vary", "0"), 2, "vary"),
        (("extract", "nowhere", "--out", "x.safetensors"), 1, "labels.csv"),
    ],
)
def test_wrong_use_is_reported(
    tamulag: Run, arguments: tuple[str, ...], code: int, told: str
) -> None:
    """1 for what cannot be used, 2 for an option that does not exist; the value is named."""
    found, _, error = tamulag(*arguments)
    assert found == code
    assert told in error


def test_videos_become_a_feature_file(videos: Path, tmp_path: Path, tamulag: Run) -> None:
    """Features are the front end's, text has times inside the file, and no parts are left."""
    out = tmp_path / "features" / "mine.safetensors"
    code, told, _ = tamulag("extract", videos, "--out", out, "--workers", 1)
    assert (code, told.strip()) == (0, f"{out}: 3 clips, 0 left out")
    assert list(out.parent.iterdir()) == [out]
    bad, silent, good = read_clips(out)
    assert [clip.label for clip in (bad, silent, good)] == [-1.5, 0.5, 2.0]
    assert [clip.group for clip in (bad, silent, good)] == ["a.wav", "b.wav", "c.wav"]
    expected = stack_inputs(play(videos / "a.wav"))
    np.testing.assert_array_equal(
        bad.values["audio"], expected.values["audio"].astype(np.float16).astype(np.float32)
    )
    np.testing.assert_array_equal(bad.ticks["audio"], expected.ticks["audio"])
    assert 0 == bad.ticks["text"][0] < bad.ticks["text"][-1] < expected.length
    assert "text" not in silent.values


def test_varied_copies_of_sound_become_a_feature_file(
    videos: Path, tmp_path: Path, tamulag: Run
) -> None:
    """Two of each clip, marked as what is never measured; none of the copies is left."""
    out, plain = tmp_path / "varied.safetensors", tmp_path / "plain.safetensors"
    code, told, _ = tamulag("extract", videos, "--vary", 2, "--out", out, "--workers", 1)
    assert (code, told.strip()) == (0, f"{out}: 6 clips, 0 left out")
    assert not list(tmp_path.glob("*.parts"))
    tamulag("extract", videos, "--out", plain, "--workers", 1)
    copies, clips = read_clips(out), read_clips(plain)
    assert [copy.label for copy in copies] == [-1.5, -1.5, 0.5, 0.5, 2.0, 2.0]
    assert [copy.group for copy in copies[::2]] == [clip.group for clip in clips]
    assert {copy.mode for copy in copies} == {VARIED}
    one, other, clip = (
        copies[4].values["audio"],
        copies[5].values["audio"],
        clips[2].values["audio"],
    )
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, clip)


def test_unreadable_video_is_skipped_and_the_rest_used(
    videos: Path, tmp_path: Path, tamulag: Run
) -> None:
    """The parts of the others stay until all is done, so that the next run is quick."""
    (videos / "b.wav").write_text("no sound")
    out = tmp_path / "mine.safetensors"
    code, told, error = tamulag("extract", videos, "--out", out, "--workers", 1)
    assert (code, told.strip()) == (0, f"{out}: 2 clips, 1 left out")
    assert "b.wav" in error
    assert "1 of 3 files could not be read" in error
    parts = tmp_path / "mine.safetensors.parts"
    made = {path: path.stat().st_mtime_ns for path in parts.iterdir()}
    assert len(made) == 2
    tone(videos / "b.wav")
    code, told, _ = tamulag("extract", videos, "--out", out, "--workers", 1)
    assert (code, told.strip()) == (0, f"{out}: 3 clips, 0 left out")
    assert not parts.exists()


def test_videos_without_anything_are_named(videos: Path, tmp_path: Path, tamulag: Run) -> None:
    """Silence is a clip, but not one that can teach anything."""
    sound_file(videos / "b.wav", np.zeros(8000))
    options = ("--out", tmp_path / "mine.safetensors", "--workers", 1)
    code, _, error = tamulag("extract", videos, *options)
    assert code == 0
    assert "no voice, face or word was found in 1: b.wav" in error


def test_nothing_readable_fails(videos: Path, tmp_path: Path, tamulag: Run) -> None:
    """Exit code 1, and no empty file."""
    for path in videos.glob("*.wav"):
        path.write_text("no sound")
    out = tmp_path / "mine.safetensors"
    code, _, error = tamulag("extract", videos, "--out", out, "--workers", 1)
    assert code == 1
    assert "none of 3 files could be read" in error
    assert not out.exists()


def test_table_may_have_another_name_and_place(videos: Path, tmp_path: Path, tamulag: Run) -> None:
    """Its files lie in the folder all the same; a bare name is looked for there."""
    (videos / "labels.csv").rename(videos / "train.csv")
    elsewhere = tmp_path / "valid.csv"
    elsewhere.write_text("file,label\nc.wav,2\n")
    for table, clips in (("train.csv", 3), (elsewhere, 1)):
        out = tmp_path / "mine.safetensors"
        assert tamulag("extract", videos, "--csv", table, "--out", out, "--workers", 1)[0] == 0
        assert len(read_clips(out)) == clips


def test_texts_become_a_feature_file(tmp_path: Path, tamulag: Run) -> None:
    """The corpus `texts` is a CSV; a mode chooses its rows."""
    out = tmp_path / "texts.safetensors"
    path = texts(tmp_path, *TEXTS)
    code, told, _ = tamulag("extract", path, "--corpus", "texts", "--mode", "valid", "--out", out)
    assert (code, told.strip()) == (0, f"{out}: 3 clips")
    assert ["text" in clip.values for clip in read_clips(out)] == [True, False, True]


def test_what_is_not_a_number_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON knows no NaN; people get aligned lines."""
    show({"n": 2, "Corr": math.nan}, as_json=True, anytime=[{"heard": 0.2, "Corr": math.nan}])
    found = json.loads(capsys.readouterr().out)
    assert found == {"n": 2, "Corr": None, "anytime": [{"heard": 0.2, "Corr": None}]}
    show({"n": 2, "MAE": 0.25}, as_json=False, anytime=[{"heard": 0.2, "MAE": 0.5}])
    assert capsys.readouterr().out.splitlines() == [
        "n                        2",
        "MAE                      0.2500",
        "heard 0.2000  MAE 0.5000",
    ]


def test_bar_counts_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing of it reaches stdout."""
    with bar("extract", 3) as progress:
        progress(2)
    told = capsys.readouterr()
    assert told.out == ""
    assert "extract" in told.err
    assert "2/3" in told.err


@pytest.mark.data
def test_shipped_text_head_is_better_than_guessing(data: Path, tamulag: Run) -> None:
    """On CMU-MOSI's validation rows."""
    found = figures(tamulag("evaluate", "--data", data / "mosi" / "valid.csv", "--json"))
    assert tuple(found) == MOSI
    assert found["n"] == 229
    assert found["Corr"] > 0.6


@pytest.mark.data
def test_folder_of_real_videos_is_extracted(data: Path, tmp_path: Path) -> None:
    """As people type it: real clips become a feature file of face, voice and words."""
    rows = "file,label,text\nlbax4n.mpg,1,lay blue at x four now\nbbaf2n.mpg,-1,bin blue\n"
    table = tmp_path / "mine.csv"
    table.write_text(rows)
    out = tmp_path / "mine.safetensors"
    files = ("--csv", table, "--out", out)
    done = command("tamulag", "extract", data / "clips", *files, "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{out}: 2 clips, 0 left out"
    assert "2/2" in done.stderr
    for clip in read_clips(out):
        assert list(clip.values) == ["text", "audio", "vision"]


def test_a_teacher_goes_with_its_corpus(tmp_path: Path) -> None:
    """One without the other is wrong use; together they write a CSV to train on."""
    table = tmp_path / "rows.csv"
    table.write_text("text,label\nI loved it.,2\nI hated it.,-2\nIt was there.,0\n")
    out = tmp_path / "taught.csv"
    verb = ("extract", str(table), "--out", str(out))
    for wrong in (("--corpus", "taught"), ("--corpus", "texts", "--teacher", "default")):
        done = call("tamulag", *verb, *wrong)
        assert done.returncode == 2
        assert "--corpus taught" in done.stderr
    done = call("tamulag", *verb, "--corpus", "texts", "--share", "0.3")
    assert done.returncode == 2
    assert "0.3 is that of a --teacher" in done.stderr
    done = call("tamulag", *verb, "--corpus", "taught", "--teacher", "default")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{out}: 3 sentences"
    assert len(out.read_text().splitlines()) == 4
