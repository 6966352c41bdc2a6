"""Public corpora as rows: the labels are mapped as the README of the data says."""

import io
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from tamulag.models.data.clips import DataError
from tamulag.streamer.offline.corpora import (
    VALENCE,
    emobank,
    faces,
    meld,
    ravdess,
    read_table,
    vader,
    voices,
)

HEADER = "file,emotion,intensity,actor\n"


def spoken(folder: Path, *rows: str) -> Path:
    (folder / "labels.csv").write_text(HEADER + "\n".join(rows) + "\n")
    return folder


@pytest.mark.parametrize(
    ("emotion", "intensity", "label"),
    [
        ("happy", "normal", 0.2 * 2.0 + 0.8 * 0.85 * 0.50),
        ("happy", "strong", 0.2 * 2.5 + 0.8 * 1.15 * 0.50),
        ("calm", "strong", 0.2 * 1.25 + 0.8 * 1.15 * 0.26),
        ("neutral", "normal", 0.0),
        ("angry", "strong", -0.2 * 2.5 - 0.8 * 1.15 * 1.18),
        ("sad", "normal", -0.2 * 2.0 - 0.8 * 0.85 * 0.44),
    ],
)
def test_emotion_and_intensity_make_the_label(
    tmp_path: Path, emotion: str, intensity: str, label: float
) -> None:
    """A strong emotion counts a quarter more."""
    (row,) = ravdess(spoken(tmp_path, f"a/b.flac,{emotion},{intensity},07"))
    assert row.label == pytest.approx(label)
    assert (row.group, row.file) == ("07", tmp_path / "a" / "b.flac")
    assert row.corpus == "ravdess"


def test_voices_of_other_corpora_have_the_same_labels(tmp_path: Path) -> None:
    """Their emotions have other names, and read speech is neutral; each is a corpus of its own."""
    table = (
        "file,corpus,emotion,speaker,text\na.opus,nemo,anger,nemo_1,\nb.opus,read,none,read_1,\n"
    )
    (tmp_path / "labels.csv").write_text(table)
    angry, read = voices(tmp_path)
    assert angry.label == pytest.approx(-0.2 * 2.0 - 0.8 * 1.18)
    assert (angry.group, angry.file) == ("nemo_1", tmp_path / "a.opus")
    assert read.label == 0.0
    assert (angry.corpus, read.corpus) == ("nemo", "read")


def test_mapped_labels_lie_on_the_scale() -> None:
    """Strong or not, nothing leaves [-3, 3]."""
    assert max(abs(valence) for valence in VALENCE.values()) * 1.25 <= 3


def painted(folder: Path, *rows: str) -> Path:
    """Make a corpus of as many faces as rows; face k is a grey square of 10 k."""
    squares = [np.full((48, 48), 10 * k, np.uint8) for k in range(len(rows))]
    packed = [cv2.imencode(".png", square)[1] for square in squares]
    np.concatenate(packed).tofile(folder / "images.bin")
    np.save(folder / "offsets.npy", np.cumsum([0, *map(len, packed)]))
    header = "index,name,split,valence_from_votes\n"
    (folder / "labels.csv").write_text(header + "\n".join(rows) + "\n")
    return folder


FACES = ("0,a.png,train,0.5", "1,b.png,valid,-0.4", "2,c.png,train,", "3,d.png,train,-1")


def test_faces_of_a_split_have_three_times_the_valence(tmp_path: Path) -> None:
    """A face without a valence is left out; the others keep their pictures."""
    rows = list(faces(painted(tmp_path, *FACES), "train"))
    assert [(row.label, row.group) for row in rows] == [(1.5, "a.png"), (-3.0, "d.png")]
    assert [int(row.image.max()) for row in rows] == [0, 30]


def test_picture_is_enlarged_and_bordered(tmp_path: Path) -> None:
    """48 pixels times four, and a quarter of that on each side, in three equal channels."""
    (row,) = faces(painted(tmp_path, *FACES), "valid")
    assert row.image.shape == (288, 288, 3)
    assert row.image.dtype == np.uint8
    assert (row.image == 10).all()


def test_damaged_picture_is_refused(tmp_path: Path) -> None:
    """The message names the file and the picture."""
    painted(tmp_path, *FACES)
    (tmp_path / "images.bin").write_bytes(bytes(1000))
    with pytest.raises(DataError, match=r"images\.bin: picture 1 is damaged"):
        list(faces(tmp_path, "valid"))


@pytest.mark.parametrize("missing", ["labels.csv", "images.bin", "offsets.npy"])
def test_missing_file_of_the_faces_is_refused(tmp_path: Path, missing: str) -> None:
    """The message names what is not there."""
    (painted(tmp_path, *FACES) / missing).unlink()
    with pytest.raises(DataError, match=f"cannot be read.*{missing}"):
        list(faces(tmp_path, "valid"))


def test_missing_table_is_refused(tmp_path: Path) -> None:
    """The message names the path."""
    with pytest.raises(DataError, match=r"labels\.csv cannot be read"):
        list(ravdess(tmp_path))


def test_table_of_a_spreadsheet_is_read(tmp_path: Path) -> None:
    """A byte order mark does not become part of the first column's name."""
    path = tmp_path / "table.csv"
    path.write_text("\ufefffile,label\r\na.wav,1\r\n", encoding="utf-8")
    assert read_table(path) == [{"file": "a.wav", "label": "1"}]


@pytest.mark.data
def test_ravdess_is_read(data: Path) -> None:
    """Each of the 1200 rows has its file, its actor and a label of the mapping."""
    rows = list(ravdess(data / "ravdess"))
    assert len(rows) == 1200
    assert {row.group for row in rows} == {f"{actor:02}" for actor in range(1, 21)}
    labels = Counter(row.label for row in rows)
    assert len(labels) == 7 * 2 + 1  # each emotion in two strengths; neutral in one
    assert labels[0.0] == 80
    assert min(labels) < -1.4
    assert max(labels) < 1.2
    assert all(row.file.is_file() for row in rows[::100])


@pytest.mark.data
def test_faces_are_read(data: Path) -> None:
    """Real pictures come out large enough for the landmarker, with labels on the scale."""
    for row in islice(faces(data / "faces", "valid"), 20):
        assert row.image.shape == (288, 288, 3)
        assert row.image.std() > 5
        assert -3 <= row.label <= 3


@pytest.mark.data
def test_faces_that_nobody_could_name_are_left_out(data: Path) -> None:
    """The two of them lie in the training split."""
    rows = read_table(data / "faces" / "labels.csv")
    unnamed = {row["name"] for row in rows if not row["valence_from_votes"]}
    first = min(int(row["index"]) for row in rows if row["name"] in unnamed)
    names = {row.group for row in islice(faces(data / "faces", "train"), first + 5)}
    assert len(unnamed) == 2
    assert names.isdisjoint(unnamed)


def rated(folder: Path, **lists: str) -> Path:
    """Make an archive within an archive, as vaderSentiment has it."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        for name, text in lists.items():
            add(archive, f"hutto_ICWSM_2014/{name}_GroundTruth.txt", text.encode())
    path = folder / "vaderSentiment-3.3.2.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        add(archive, "v/additional_resources/hutto_ICWSM_2014.tar.gz", inner.getvalue())
    return path


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Put a file into an archive."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def test_rated_sentences_are_brought_to_the_scale(tmp_path: Path) -> None:
    """Four becomes three; quotation marks and HTML are undone."""
    path = rated(
        tmp_path,
        movieReviewSnippets="1\t4.0\tA ''great'' film\r\n",
        amazonReviewSnippets="1_1\t-2\tbroken\n",
        tweets="7\t0.4\tyou &amp; me\n",
    )
    found = [('A "great" film', 3.0), ("broken", -1.5), ("you & me", pytest.approx(0.3))]
    assert list(vader(path)) == found


def test_archive_without_ratings_is_refused(tmp_path: Path) -> None:
    """The error says which archive is meant."""
    with pytest.raises(DataError, match="pip download"):
        list(vader(rated(tmp_path, tweets="1\t1\tx\n")))


def test_dialogue_and_valence_are_brought_to_the_scale(tmp_path: Path) -> None:
    """MELD's classes, and EmoBank's range of 1 to 5; a sentence without a word is left out."""
    path = tmp_path / "dev.csv"
    path.write_text("text,sentiment\nSo good!,positive\nRight.,neutral\nWe can\x92t,negative\n")
    assert list(meld(path)) == [("So good!", 1.5), ("Right.", 0.0), ("We can\u2019t", -1.5)]
    path.write_text("id,text,V\na,Fine,5\nb, ,3\nc,Bad,2.5\n")
    assert list(emobank(path)) == [("Fine", 3.0), ("Bad", -0.75)]


@pytest.mark.parametrize(
    ("table", "corpus", "message"),
    [
        ("a,b\n1,2\n", meld, "has no column text, sentiment"),
        ("text,sentiment\nHm,mixed\n", meld, "'mixed' is not one of positive"),
        ("text,V\nHm,high\n", emobank, "'high' is no number"),
    ],
)
def test_another_table_is_refused(
    tmp_path: Path,
    table: str,
    corpus: Callable[[Path], Iterator[tuple[str, float]]],
    message: str,
) -> None:
    """The error names the file and what is wrong with it."""
    path = tmp_path / "odd.csv"
    path.write_text(table)
    with pytest.raises(DataError, match=message):
        list(corpus(path))
