"""Feature files and CSVs of texts: what goes in comes out, what is wrong is named."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from unicodedata import normalize

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from tamulag.models.data.clips import (
    Clip,
    DataError,
    MediaRow,
    TextRow,
    csv_columns,
    csv_rows,
    has_modes,
    is_media,
    read_clips,
    read_labelled,
    read_media,
    read_texts,
    write_clips,
)

NormalForm = Literal["NFC", "NFD"]

DIMS = {"text": 3, "audio": 2, "vision": 1}


def clip(*names: str, label: float = 1.5, group: str = "ann", length: int = 4) -> Clip:
    """Return a clip of some modalities; halves survive float16 as they are."""
    values = {
        n: np.arange(length * DIMS[n], dtype=np.float32).reshape(length, DIMS[n]) * np.float32(0.5)
        for n in names
    }
    return Clip(label, group, values, {name: np.arange(length) * 5 for name in names})


def round_trip(clips: list[Clip]) -> list[Clip]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clips.safetensors"
        write_clips(path, clips, about="a test")
        return read_clips(path)


def same(actual: Clip, expected: Clip, relative: float = 0.0) -> None:
    assert (actual.label, actual.group) == (expected.label, expected.group)
    assert actual.unimodal == expected.unimodal
    assert actual.values.keys() == actual.ticks.keys() == expected.values.keys()
    for name, values in expected.values.items():
        assert actual.values[name].dtype == np.float32
        np.testing.assert_allclose(actual.values[name], values, rtol=relative, atol=relative)
        np.testing.assert_array_equal(actual.ticks[name], expected.ticks[name])


@st.composite
def clips_of_any_kind(draw: st.DrawFn) -> Clip:
    names = draw(st.sets(st.sampled_from(sorted(DIMS))))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lengths = {name: draw(st.integers(1, 6)) for name in names}
    return Clip(
        draw(st.floats(-3, 3, width=32)),
        draw(st.text(max_size=5)),
        {n: rng.uniform(-50, 50, (k, DIMS[n])).astype(np.float32) for n, k in lengths.items()},
        {n: np.sort(rng.integers(0, 2**40, k)) for n, k in lengths.items()},
        draw(st.dictionaries(st.sampled_from(sorted(DIMS)), st.floats(-3, 3, width=32))),
    )


@settings(max_examples=40)
@given(st.lists(clips_of_any_kind(), max_size=6))
def test_clips_come_back_within_half_precision(clips: list[Clip]) -> None:
    """Any clips with any modalities keep their order, labels, groups, ticks and values."""
    for actual, expected in zip(round_trip(clips), clips, strict=True):
        same(actual, expected, relative=2**-10)


@pytest.mark.parametrize(
    "names", [("text",), ("vision", "audio"), ("text", "audio", "vision"), ()], ids="+".join
)
def test_clip_keeps_its_modalities(names: tuple[str, ...]) -> None:
    """A modality that a clip has not is left out, whatever its neighbours have."""
    clips = [clip("text", "audio"), clip(*names, group="bob"), clip("vision", length=2)]
    for actual, expected in zip(round_trip(clips), clips, strict=True):
        same(actual, expected)


def test_modality_with_nothing_in_it_is_left_out() -> None:
    """No rows is the same as absent."""
    (again,) = round_trip([clip("text", length=0)])
    assert not again.values


def test_writing_leaves_one_file(tmp_path: Path) -> None:
    """The folder is made, and nothing half written stays in it."""
    path = tmp_path / "made" / "clips.safetensors"
    write_clips(path, [clip("text")], about="a test")
    assert list(path.parent.iterdir()) == [path]


def test_missing_file_is_refused(tmp_path: Path) -> None:
    """The message names the file and the command that makes it."""
    with pytest.raises(DataError, match=r"none\.safetensors cannot be read.*run tamulag extract"):
        read_clips(tmp_path / "none.safetensors")


def test_damaged_file_is_refused(tmp_path: Path) -> None:
    """Half a file is not read."""
    path = tmp_path / "half.safetensors"
    write_clips(path, [clip("text")], about="a test")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"half\.safetensors cannot be read"):
        read_clips(path)


def test_other_format_is_refused(tmp_path: Path) -> None:
    """Arrays of another program are known by their format."""
    path = tmp_path / "foreign.safetensors"
    save_file({"label": np.zeros(1)}, path)
    with pytest.raises(DataError, match=r"foreign\.safetensors has format None, expected 'tamulag"):
        read_clips(path)


def table(folder: Path, text: str | bytes) -> Path:
    path = folder / "texts.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_corpus_and_mode_stay_with_a_clip(tmp_path: Path) -> None:
    """A file that names no corpus is one itself, and has no splits."""
    path = tmp_path / "mosi.safetensors"
    write_clips(path, [clip("text")], about="a test")
    (found,) = read_clips(path)
    assert (found.corpus, found.mode) == ("mosi", "")
    write_clips(tmp_path / "all.safetensors", [replace(found, mode="valid")], about="a test")
    (again,) = read_clips(tmp_path / "all.safetensors")
    assert (again.corpus, again.mode) == ("mosi", "valid")


def test_texts_are_read_with_label_and_group(tmp_path: Path) -> None:
    """Columns may stand in any order beside others; without a video the line is the group."""
    path = table(tmp_path, 'label,x,text,video_id\n-3,,"bad, very",v7\n 2.5 ,,gut ✓,\n')
    assert read_texts(path) == [("bad, very", -3.0, "v7"), ("gut ✓", 2.5, "3")]


@pytest.mark.parametrize("text", ["\ufefftext,label\nfine,1\n", "text,label\r\nfine,1\r\n"])
def test_files_of_spreadsheets_are_read(tmp_path: Path, text: str) -> None:
    """A byte order mark and Windows line ends do not matter."""
    assert read_texts(table(tmp_path, text)) == [("fine", 1.0, "2")]


def test_header_alone_gives_no_rows(tmp_path: Path) -> None:
    """No rows are no error here; callers that need some refuse it."""
    assert read_texts(table(tmp_path, "text,label\n")) == []


@pytest.mark.parametrize("label", ["good", "", "3.1", "-4", "nan", "inf"])
def test_bad_label_is_refused_with_its_line(tmp_path: Path, label: str) -> None:
    """The message names file, line and value, and what is allowed."""
    path = table(tmp_path, f"text,label\nfine,1\nodd,{label}\n")
    with pytest.raises(DataError, match=rf"texts\.csv line 3: label '{label}' .*\[-3, 3\]"):
        read_texts(path)


def test_line_counts_what_an_editor_shows(tmp_path: Path) -> None:
    """Empty lines and texts of several lines do not mislead."""
    path = table(tmp_path, 'text,label\n"two\nlines",1\n\nodd,x\n')
    with pytest.raises(DataError, match="line 5: label 'x'"):
        read_texts(path)


def test_short_row_is_refused(tmp_path: Path) -> None:
    """A row without its label does not get one."""
    with pytest.raises(DataError, match="line 2, column label: the row has 1 field"):
        read_texts(table(tmp_path, "text,label\nalone\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("text,score\na,1\n", "column label is missing.*found text,score", id="column"),
        pytest.param("", "column label, text is missing", id="empty"),
        pytest.param(b"text,label\n\xff\xfe,1\n", "cannot be read as a CSV", id="not UTF-8"),
    ],
)
def test_file_that_is_no_table_of_texts_is_refused(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    """The message names the file and what was expected."""
    with pytest.raises(DataError, match=rf"texts\.csv.*{message}"):
        read_texts(table(tmp_path, text))


def test_missing_table_is_refused(tmp_path: Path) -> None:
    """The message names the path."""
    with pytest.raises(DataError, match=r"none\.csv cannot be read"):
        read_texts(tmp_path / "none.csv")


SIMS = (
    "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode\n"
    "video_0001,0001,我不想嫁给李茶,-1.0,-1.0,-0.8,-0.6,Negative,train\n"
    "video_0001,0002,你好,0.4,0.0,,1.0,Positive,valid\n"
)


def test_human_labels_of_each_modality_are_read(tmp_path: Path) -> None:
    """CH-SIMS has labels of text, voice and face apart; what has none is left out."""
    first, second = read_labelled(table(tmp_path, SIMS), limit=1.0)
    assert first == TextRow(
        "我不想嫁给李茶",
        -1.0,
        "video_0001",
        {"text": -1.0, "audio": -0.8, "vision": -0.6},
        "train",
        1.0,
    )
    assert second.unimodal == {"text": 0.0, "vision": 1.0}


def test_rows_of_one_mode_are_kept(tmp_path: Path) -> None:
    """One `label.csv` holds all splits."""
    path = table(tmp_path, SIMS)
    assert [row.text for row in read_labelled(path, mode="valid")] == ["你好"]
    with pytest.raises(DataError, match=r"no row has the mode 'dev': there are .*valid"):
        read_labelled(path, mode="dev")


def test_media_without_text_can_be_heard(tmp_path: Path) -> None:
    """For the text head on a table of files the message has the remedy."""
    with pytest.raises(DataError, match=r"column text is missing.*--asr moonshine"):
        read_labelled(table(tmp_path, "file,label\na.mp4,1\n"))


def test_mode_needs_its_column(tmp_path: Path) -> None:
    """Without it nothing is known of splits."""
    with pytest.raises(DataError, match="column mode is missing"):
        read_labelled(table(tmp_path, "text,label\na,1\n"), mode="train")


@pytest.mark.parametrize(
    ("column", "value"), [("label", "1.2"), ("label_A", "-2"), ("label_V", "x")]
)
def test_label_out_of_the_range_of_the_set_is_refused(
    tmp_path: Path, column: str, value: str
) -> None:
    """CH-SIMS goes from -1 to 1, for the human labels too."""
    columns = {"text": "a", "label": "0", column: value}
    path = table(tmp_path, ",".join(columns) + "\n" + ",".join(columns.values()) + "\n")
    with pytest.raises(DataError, match=rf"line 2: {column} '{value}' .* in \[-1, 1\]"):
        read_labelled(path, limit=1.0)


def media(folder: Path, text: str, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    return table(folder, text)


def test_media_files_lie_beside_their_table(tmp_path: Path) -> None:
    """Text and group may be missing; then the text is unknown and each file is its own group."""
    path = media(
        tmp_path, "file,label,text,group\na/b.mp4,-2.5,so bad,ann\nc.wav,1,,\n", "a/b.mp4", "c.wav"
    )
    one, other = read_media(path)
    assert one == MediaRow(tmp_path / "a" / "b.mp4", -2.5, "so bad", "ann")
    assert other == MediaRow(tmp_path / "c.wav", 1.0, "", "c.wav")


def test_media_files_may_lie_elsewhere(tmp_path: Path) -> None:
    """A folder that is named is where the files are."""
    (tmp_path / "videos").mkdir()
    path = media(tmp_path, "file,label\nc.wav,1\n", "videos/c.wav")
    (row,) = read_media(path, folder=tmp_path / "videos")
    assert row.file == tmp_path / "videos" / "c.wav"


@pytest.mark.parametrize("name", ["none.mp4", "", "."])
def test_missing_media_file_is_refused_with_its_line(tmp_path: Path, name: str) -> None:
    """The message names line and file before anything is computed."""
    path = media(tmp_path, f"file,label\nc.wav,1\n{name},1\n", "c.wav")
    with pytest.raises(DataError, match=rf"texts\.csv line 3: no file .*{name}: correct"):
        read_media(path)


def test_media_label_out_of_range_is_refused(tmp_path: Path) -> None:
    """The line is named as for texts."""
    with pytest.raises(DataError, match=r"line 2: label '7' must be a number in \[-3, 3\]"):
        read_media(media(tmp_path, "file,label\nc.wav,7\n", "c.wav"))


@pytest.mark.parametrize(
    ("text", "expected"), [("file,label\n", True), ("text,label,x\n", False), ("", False)]
)
def test_media_table_is_known_by_its_column(tmp_path: Path, text: str, expected: bool) -> None:
    """The column `file` makes the difference."""
    assert is_media(table(tmp_path, text)) is expected


def test_unreadable_table_is_refused(tmp_path: Path) -> None:
    """The message names the path."""
    with pytest.raises(DataError, match=r"none\.csv cannot be read"):
        is_media(tmp_path / "none.csv")


@pytest.mark.data
def test_real_label_files_are_read(data: Path) -> None:
    """CH-SIMS and CMU-MOSI in their official splits, with as many rows as published."""
    sims = read_labelled(data / "sims" / "train.csv", mode="train", limit=1.0)
    assert len(sims) == 1368
    assert all(len(row.unimodal) == 3 for row in sims)
    assert len(read_labelled(data / "mosi" / "valid.csv", mode="valid")) == 229


@pytest.mark.parametrize(("header", "expected"), [("text,label,mode", True), ("text,label", False)])
def test_a_csv_with_modes_is_known(tmp_path: Path, header: str, expected: bool) -> None:
    """By its header; a row is not looked at."""
    assert has_modes(table(tmp_path, f"{header}\nmode,1,x\n")) is expected


def test_a_speaker_is_a_group_and_a_clip_has_a_place(tmp_path: Path) -> None:
    """Where there is no group; a clip's number that is none places it first."""
    (tmp_path / "a.wav").write_bytes(b"")
    path = tmp_path / "media.csv"
    path.write_text("file,label,speaker\na.wav,0,anna\n")
    assert [row.group for row in read_media(path)] == ["anna"]
    path = tmp_path / "texts.csv"
    path.write_text("text,label,video_id,clip_id\na,0,v,0012\nb,0,v,x7\n")
    assert [row.place for row in read_labelled(path)] == [12.0, 0.0]


MARK = "\ufeff"


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("text,label\nfine,1\nI like it, a little,1\n", r"line 3, column label: .* 3 fields .* 2"),
        ("label,text\n1,fine\n1,fine,\n", r"line 3, column text: .* 3 fields .* double quotes"),
        ("text,label,mode\nfine,1\n", r"line 2, column mode: .* 2 fields .* 3: write a comma"),
        ('text,label\n"two\nlines",1\nodd\n', r"line 4, column label"),
    ],
    ids=["unquoted", "one too many", "one too few", "after a text of two lines"],
)
def test_a_row_that_does_not_fit_is_refused(tmp_path: Path, text: str, why: str) -> None:
    """File, line and column are named; nothing is cut and nothing is left empty."""
    with pytest.raises(DataError, match=rf"a\.csv {why}"):
        list(csv_rows(written(tmp_path / "a.csv", text)))


def test_blanks_in_the_header_do_not_matter(tmp_path: Path) -> None:
    """`text, label` has a column label."""
    path = written(tmp_path / "a.csv", f"{MARK} text , label\nfine, 2\n")
    assert csv_columns(path) == ["text", "label"]
    assert read_texts(path) == [("fine", 2.0, "2")]


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 1: column label is there twice"):
        read_texts(written(tmp_path / "a.csv", "text,label,label\nfine,1,2\n"))


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_table", ["NFC", "NFD"])
def test_a_file_is_found_in_either_normal_form(
    tmp_path: Path, on_disk: NormalForm, in_table: NormalForm
) -> None:
    """An accented letter is one character or two: table and disk need not agree."""
    name = "caf\u00e9 \u00fc.wav"
    (tmp_path / normalize(on_disk, name)).write_bytes(b"")
    table = written(tmp_path / "labels.csv", f"file,label\n{normalize(in_table, name)},1\n")
    assert read_media(table)[0].file.is_file()
