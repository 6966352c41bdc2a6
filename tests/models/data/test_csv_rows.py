"""Rows that do not fit their columns are refused, and names that differ only in form are found."""

from pathlib import Path
from unicodedata import normalize

import pytest

from tamulag.models.data.clips import DataError, csv_columns, csv_rows, read_media, read_texts
from tamulag.models.training.recipe_file import parsed
from tamulag.streamer.config.loader import load
from tamulag.streamer.config.secret_file import read_secret

MARK = "\ufeff"


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("text,label\nfine,1\nI like it, a little,1\n", r"line 3, column label: .* 3 fields .* 2"),
        ("label,text\n1,fine\n1,fine,\n", r"line 3, column text: .* 3 fields .* double quotes"),
        ("text,label,mode\nfine,1\n", r"line 2, column mode: .* 2 fields .* 3: write a comma"),
        ('text,label\n"two\nlines",1\nodd\n', r"line 4, column label"),
    ],
    ids=["unquoted", "one too many", "one too few", "after a text of two lines"],
)
def test_a_row_that_does_not_fit_is_refused(tmp_path: Path, text: str, told: str) -> None:
    """File, line and column are named; nothing is cut and nothing is left empty."""
    with pytest.raises(DataError, match=rf"a\.csv {told}"):
        list(csv_rows(written(tmp_path / "a.csv", text)))


def test_blanks_in_the_header_do_not_matter(tmp_path: Path) -> None:
    """`text, label` has a column label."""
    path = written(tmp_path / "a.csv", f"{MARK} text , label\nfine, 2\n")
    assert csv_columns(path) == ["text", "label"]
    assert read_texts(path) == [("fine", 2.0, "2")]


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """Nobody can say which of the two is meant."""
    with pytest.raises(DataError, match=r"line 1: column label is there twice"):
        read_texts(written(tmp_path / "a.csv", "text,label,label\nfine,1,2\n"))


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_table", ["NFC", "NFD"])
def test_a_file_is_found_in_either_normal_form(tmp_path: Path, on_disk: str, in_table: str) -> None:
    """An accented letter is one character or two: table and disk need not agree."""
    name = "caf\u00e9 \u00fc.wav"
    (tmp_path / normalize(on_disk, name)).write_bytes(b"")
    table = written(tmp_path / "labels.csv", f"file,label\n{normalize(in_table, name)},1\n")
    assert read_media(table)[0].file.is_file()


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    """Editors of Windows write one: settings, training files and secrets are read all the same."""
    settings = written(tmp_path / "c.toml", f"{MARK}[session]\nhop = 1.0\n")
    assert load(settings, {}).session.hop == 1.0
    assert parsed(settings) == {"session": {"hop": 1.0}}
    secret = written(tmp_path / "token", f"{MARK}open sesame\n")
    secret.chmod(0o600)
    assert read_secret(secret) == "open sesame"
