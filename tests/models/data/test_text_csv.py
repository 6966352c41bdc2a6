"""Labelled sentences: test rows are never read, no row is on both sides, names do not clash."""

from pathlib import Path

import numpy as np
import pytest

from tamulag.models.data.clips import DataError, TextRow, has_modes
from tamulag.models.data.text_csv import (
    FILLERS,
    Part,
    names_of,
    read_part,
    text_clips,
    vary_words,
)
from tamulag.models.data.validation_split import refuse_shared

FIELD = "text,label,mode\ngood,2,train\nfine,1,train\nbad,-2,valid\nsecret,3,test\n"
PLAIN = "text,label\ngood,0.5\nbad,-1\n"


def table(folder: Path, content: str, name: str = "label.csv") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(("part", "texts"), [("train", ["good", "fine"]), ("valid", ["bad"])])
def test_the_column_mode_splits_a_file(tmp_path: Path, part: Part, texts: list[str]) -> None:
    """The field's `label.csv` may be given to both sides; its test rows are on neither."""
    path = table(tmp_path, FIELD)
    refuse_shared([path], [path], "add a column mode", has_modes)
    assert [row.text for row in read_part([path], part, "mosi")] == texts


def test_a_mode_without_rows_is_refused(tmp_path: Path) -> None:
    """A file of training rows alone does not validate."""
    path = table(tmp_path, "text,label,mode\ngood,2,train\n")
    with pytest.raises(DataError, match="no row has the mode 'valid': there are train"):
        read_part([path], "valid", "mosi")


def test_a_file_without_modes_is_read_whole(tmp_path: Path) -> None:
    """Labels in [-1, 1] are stretched to [-3, 3]."""
    rows = read_part([table(tmp_path, PLAIN)], "train", "sims")
    assert [(row.text, row.label) for row in rows] == [("good", 1.5), ("bad", -3.0)]


def test_one_file_on_both_sides_is_refused(tmp_path: Path) -> None:
    """By whatever path it is named; the message has the remedy."""
    path = table(tmp_path / "made", PLAIN)
    again = path.parent / ".." / "made" / path.name
    with pytest.raises(DataError, match="give two files, or add a column mode"):
        refuse_shared([path], [again], "add a column mode", has_modes)


def test_a_file_is_named_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the current folder too; two of one folder have their own names as well."""
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "mosi" / "valid.csv"
    assert names_of([Path("valid.csv"), other]) == [tmp_path.name, "mosi"]
    assert names_of([other, other.with_name("more.csv")]) == ["mosi-valid", "mosi-more"]


def test_two_files_of_one_name_are_refused() -> None:
    """Neither's figures are written over the other's."""
    with pytest.raises(DataError, match=r"two files mosi-valid"):
        names_of([Path("a/mosi/valid.csv"), Path("b/mosi/valid.csv")])


@pytest.mark.parametrize(
    ("bare", "prefix", "text"), [(1.0, 0.0, "well done all"), (0.0, 0.0, "well, done all!")]
)
def test_a_bare_sentence_has_no_punctuation(bare: float, prefix: float, text: str) -> None:
    """Some recognisers give none."""
    rng = np.random.default_rng(0)
    words = ["well,", "done", "all!"]
    assert vary_words(words, rng, bare=bare, prefix=prefix) == text.split()


def test_a_prefix_has_the_first_words() -> None:
    """Live words come one after the other."""
    words = list("abcdefgh")
    cut = [vary_words(words, np.random.default_rng(seed), bare=0, prefix=1) for seed in range(50)]
    assert {len(part) for part in cut} == {3, 4, 5, 6, 7}
    assert all(part == words[: len(part)] for part in cut)


def test_a_halting_sentence_has_all_its_words_and_fillers_between() -> None:
    """About an eighth of its words have something before them; others are as they were."""
    words = [f"word{number}" for number in range(1000)]
    rng = np.random.default_rng(0)
    spoken = vary_words(words, rng, bare=0, prefix=0, fillers=1)
    kept = [word for word in spoken if word.startswith("word")]
    assert list(dict.fromkeys(kept)) == words
    assert 15 < len(kept) - len(words) < 50
    between = [word for word in spoken if not word.startswith("word")]
    assert 70 < len(between) < 160
    assert set(between) == {part for filler in FILLERS for part in filler.split()}
    assert vary_words(words, rng, bare=0, prefix=0) == words


def test_written_words_stand_at_tick_zero() -> None:
    """Nobody spoke them; a text without a token has no text."""
    states = [np.ones((2, 384), np.float32), np.ones((0, 384), np.float32)]
    rows = [TextRow("so good", 2.0, "v1", {"audio": 1.0}), TextRow("", 0.0, "v2")]
    spoken, silent = text_clips(rows, states)
    assert spoken.unimodal == {"audio": 1.0}
    assert (spoken.label, spoken.group) == (2.0, "v1")
    assert spoken.ticks["text"].tolist() == [0, 0]
    assert spoken.values["text"] is states[0]
    assert not silent.values
    assert not silent.ticks


def test_texts_and_states_must_be_as_many() -> None:
    """A label is never given to another text."""
    with pytest.raises(ValueError, match="zip"):
        text_clips([TextRow("so good", 2.0, "v1")], [])
