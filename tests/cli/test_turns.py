"""`tamulag evaluate --live`: the figures of evaluate, of what a session says turn after turn."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from support.figure_names import MOSI, SIMS
from support.model_contract import tiny
from support.sound_files import two_sentences
from tamulag.models import MODALITIES, ModelConfig
from tamulag.models.runtime.checkpoint import Card, save
from tamulag.streamer.cli.main import app

TEXTS = """video_id,clip_id,text,label
v,2,this is the worst film i have ever seen,-0.9
v,1,i loved it and it was wonderful,0.9
w,1,what a beautiful and great movie,0.8
"""


def run(verb: str, *options: object) -> Result:
    return CliRunner().invoke(app, [*verb.split(), *map(str, options)])


def figures(verb: str, *options: object) -> dict[str, float]:
    done = run(verb, *options, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Return two videos of which one has two sentences, the later one first."""
    path = tmp_path / "texts.csv"
    path.write_text(TEXTS)
    return path


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Return two clips of one reader, the second with another text than is heard."""
    two_sentences(tmp_path)
    path = tmp_path / "media.csv"
    path.write_text("file,speaker,label,text\na.wav,one,0,\nb.wav,one,1,i love it\n")
    return path


@pytest.mark.parametrize(("form", "keys"), [("mosi", MOSI), ("sims", SIMS)])
def test_keys_are_those_of_evaluate(texts: Path, form: str, keys: tuple[str, ...]) -> None:
    """And `live` says what they are of."""
    found = figures("evaluate", "--data", texts, "--live", "--metrics", form)
    assert tuple(found) == (*keys, "live")
    assert (found["n"], found["missing"], found["live"]) == (3, 0, True)


def test_it_is_the_turn_of_bench_live(texts: Path) -> None:
    """The same streams through the same sessions."""
    live = figures("bench live", "--data", texts)
    found = figures("evaluate", "--data", texts, "--live")
    for key, other in (("MAE", "MAE"), ("Corr", "Corr"), ("Acc2_non0", "Acc2")):
        assert found[key] == pytest.approx(live[f"turn_{other}"], abs=1e-9)
    assert found["covered"] == live["turn_covered"]
    assert found["MAE"] != figures("evaluate", "--data", texts)["MAE"]


def test_labels_of_sims_are_in_its_range(tmp_path: Path) -> None:
    """The same sentences with a third of the labels: a third of the distances."""
    rows = "text,label\nwhat a great day,{:g}\nhow awful,{:g}\n"
    large, small = tmp_path / "large.csv", tmp_path / "small.csv"
    large.write_text(rows.format(1.5, -1.5))
    small.write_text(rows.format(0.5, -0.5))
    wide = figures("evaluate", "--data", large, "--live")
    narrow = figures("evaluate", "--data", small, "--live", "--metrics", "sims")
    assert narrow["MAE"] == pytest.approx(wide["MAE"] / 3, abs=1e-6)
    assert narrow["covered"] == wide["covered"]


def test_clips_of_a_speaker_by_voice_and_recognised_words(media: Path) -> None:
    """The clip without text has words with a recogniser alone."""
    options = ("--data", media, "--live", "--modality")
    assert figures("evaluate", *options, "audio")["missing"] == 0
    assert figures("evaluate", *options, "text")["missing"] == 1
    heard = figures("evaluate", *options, "text", "--asr", "moonshine")
    assert (heard["n"], heard["missing"]) == (2, 0)


def test_an_unreadable_file_is_named_and_scored_by_its_text(media: Path) -> None:
    """The others are played all the same; where all are unreadable nothing is measured."""
    (media.parent / "b.wav").write_text("no sound")
    done = run("evaluate", "--data", media, "--live", "--json")
    assert done.exit_code == 0, done.output
    assert "b.wav" in done.stderr
    assert "1 of 2 files could not be read" in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["missing"] == 0
    (media.parent / "a.wav").write_text("no sound")
    told = run("evaluate", "--data", media, "--live")
    assert "none of 2 files could be read" in str(told.exception)


def test_people_read_it_too(texts: Path) -> None:
    """A line for each figure; the last one says that it was live."""
    lines = run("evaluate", "--data", texts, "--live").stdout.splitlines()
    assert lines[0].split() == ["n", "3"]
    assert lines[-1].split() == ["live", "True"]


def test_anytime_is_refused(texts: Path) -> None:
    """A turn is scored at its end: there is no curve of it."""
    done = run("evaluate", "--data", texts, "--live", "--anytime")
    assert done.exit_code == 2
    assert "--anytime" in done.output


def test_nothing_to_say_is_reported(media: Path) -> None:
    """No clip has a face: a figure would be that of zeros."""
    done = run("evaluate", "--data", media, "--live", "--modality", "vision")
    assert "none of 2 clips has anything for the head vision" in str(done.exception)


@pytest.mark.parametrize("verb", ["evaluate --live", "bench live"])
def test_a_checkpoint_of_other_vectors_is_refused(texts: Path, verb: str) -> None:
    """Before anything is played, with both sizes."""
    path = texts.parent / "tiny.safetensors"
    save(tiny(ModelConfig()), Card(trained=dict.fromkeys(("sentiment", *MODALITIES), True)), path)
    told = str(run(verb, "--data", texts, "--checkpoint", path).exception)
    assert "text vectors of" in told
    assert "384" in told
