"""Public corpora as rows of material and sentiment, with the mapping of their labels.

Knows the folders of RAVDESS, of voices of several corpora and of FER2013 with the FER+ votes, the
rated sentences in the source archive of vaderSentiment, MELD and EmoBank. Knows no features.
"""

import html
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tamulag.models.data.clips import DataError, MediaRow, csv_columns, csv_rows, named_file

VALENCE = {
    "happy": 2.0,
    "calm": 1.0,
    "surprised": 1.0,
    "neutral": 0.0,
    "sad": -2.0,
    "angry": -2.0,
    "fearful": -2.0,
    "disgust": -2.0,
}
"""Emotions of RAVDESS on the sentiment scale; a choice of this project, not a human rating."""
HEARD = {
    "happy": 0.50,
    "calm": 0.26,
    "surprised": 0.50,
    "neutral": 0.0,
    "sad": -0.44,
    "angry": -1.18,
    "fearful": -0.62,
    "disgust": -0.73,
}
"""Mean valence that people hear in each acted emotion, relative to that of neutral voices.

From the votes on the voice alone of CREMA-D (Cao et al. 2014; 7,442 clips), where happy, neutral,
anger, disgust, sadness and fear count 2.2, 0, -2, -2, -1.8 and -1.7. `calm` and `surprised` were
not acted there: half of happy, and happy.
"""
INTENDED_SHARE = 0.2
"""Of what was intended in the label of a voice; the rest is what is heard. With all of it a voice
is sure of everybody; with none, emotions are distinguished less well."""
NAMES = {
    "happiness": "happy",
    "sadness": "sad",
    "anger": "angry",
    "fear": "fearful",
    "none": "neutral",
}
"""Emotions of the voices' corpora by the names of RAVDESS; read speech has none."""
STRONG = 1.25
BORDER = 0.25
"""Border added around the faces of FER2013, too tight for the landmarker; share of a side."""
ENLARGE = 4
RATED = ("movieReviewSnippets", "amazonReviewSnippets", "tweets")
"""Lists of opinions; the sentences of newspaper editorials beside them are not used."""
RATING = 4.0
"""Bound of the ratings: each the mean of twenty people, in [-4, 4] (Hutto and Gilbert 2014)."""
LONGEST = 64 << 20
DIALOGUE = {"positive": 1.5, "neutral": 0.0, "negative": -1.5}
"""Classes of MELD on the sentiment scale: the middle of what is beyond 0.5 either way, nearly."""
VALENCE_SCALE = 1.5
"""Sentiment per step of EmoBank's valence, whose range of [1, 5] is that of sentiment then."""


@dataclass(frozen=True)
class Picture:
    """One labelled picture of a corpus."""

    label: float
    group: str
    image: npt.NDArray[np.uint8]
    """RGB (H, W, 3)."""


def read_table(path: Path, *columns: str) -> list[dict[str, str]]:
    """Return the rows of a CSV.

    Args:
        path: The CSV.
        columns: Those that it must have.

    Raises:
        DataError: If it cannot be read, a column is missing, or a row does not fit the columns.
    """
    there = csv_columns(path)
    missing = [name for name in columns if name not in there]
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)}: is it a table of this corpus?")
    return [row for _, row in csv_rows(path)]


def ravdess(folder: Path) -> Iterator[MediaRow]:
    """Yield the acted speech of RAVDESS, one group per actor (Livingstone and Russo 2018)."""
    for row in read_table(folder / "labels.csv", "file", "emotion", "intensity", "actor"):
        is_strong = row["intensity"] == "strong"
        label = voice_label(row["emotion"], *((STRONG, 1.15) if is_strong else (1.0, 0.85)))
        file = named_file(folder, row["file"])
        yield MediaRow(file, label, group=row["actor"], corpus="ravdess")


def voices(folder: Path) -> Iterator[MediaRow]:
    """Yield read and acted speech of several corpora, one group per speaker.

    Args:
        folder: Contains `labels.csv` with the columns `file,corpus,emotion,speaker`.
    """
    for row in read_table(folder / "labels.csv", "file", "corpus", "emotion", "speaker"):
        label = voice_label(row["emotion"])
        file = named_file(folder, row["file"])
        yield MediaRow(file, label, group=row["speaker"], corpus=row["corpus"])


def voice_label(emotion: str, intended: float = 1.0, heard: float = 1.0) -> float:
    """Return the label of a voice that acts an emotion: partly what is heard, partly what is meant.

    Args:
        emotion: By one of its names in `VALENCE` and `NAMES`.
        intended: Factor of what is meant, for the strength of the acting.
        heard: Factor of what is heard.
    """
    name = NAMES.get(emotion, emotion)
    return INTENDED_SHARE * intended * VALENCE[name] + (1 - INTENDED_SHARE) * heard * HEARD[name]


def faces(folder: Path, split: str) -> Iterator[Picture]:
    """Yield the faces of FER2013 with three times the valence of their FER+ votes.

    Args:
        folder: Contains `labels.csv`, `images.bin` and `offsets.npy`.
        split: `train` or `valid`.

    A face without a majority of votes has no valence and is skipped.

    Raises:
        DataError: If one of the three files is missing or damaged.
    """
    import cv2

    rows = read_table(folder / "labels.csv")
    try:
        packed = np.fromfile(folder / "images.bin", np.uint8)
        offsets = np.load(folder / "offsets.npy", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"pictures of {folder} cannot be read: {error}") from error
    for row in rows:
        if row["split"] != split or not row["valence_from_votes"]:
            continue
        index = int(row["index"])
        grey = cv2.imdecode(packed[offsets[index] : offsets[index + 1]], cv2.IMREAD_GRAYSCALE)
        if grey is None:
            raise DataError(f"{folder / 'images.bin'}: picture {index} is damaged: fetch it again")
        large = cv2.resize(grey, None, fx=ENLARGE, fy=ENLARGE, interpolation=cv2.INTER_CUBIC)
        edge = round(BORDER * large.shape[0])
        framed = cv2.copyMakeBorder(large, edge, edge, edge, edge, cv2.BORDER_REPLICATE)
        image = np.repeat(framed[:, :, None], 3, axis=2).astype(np.uint8)
        yield Picture(3.0 * float(row["valence_from_votes"]), row["name"], image)


def vader(archive: Path) -> Iterator[tuple[str, float]]:
    """Yield rated sentences and their sentiment in [-3, 3].

    Args:
        archive: Source archive of the package vaderSentiment 3.3.2, as downloaded.

    Raises:
        DataError: If the archive or a list of ratings in it is missing or damaged.
    """
    try:
        with tarfile.open(archive) as outer:
            packed = _member(outer, "hutto_ICWSM_2014.tar.gz")
        with tarfile.open(fileobj=io.BytesIO(packed)) as inner:
            lists = [_member(inner, f"{name}_GroundTruth.txt").decode("utf-8") for name in RATED]
    except (OSError, tarfile.TarError, KeyError, UnicodeDecodeError) as error:
        raise DataError(
            f"{archive} cannot be read as the source archive of vaderSentiment ({error}): "
            "run pip download --no-deps --no-binary :all: vaderSentiment==3.3.2"
        ) from error
    for line in chain.from_iterable(map(str.splitlines, lists)):
        _, rating, text = line.split("\t", 2)
        # Two apostrophes stand for a quotation mark in these lists, and tweets are HTML.
        yield html.unescape(text.replace("''", '"')).strip(), 3.0 / RATING * float(rating)


def meld(path: Path) -> Iterator[tuple[str, float]]:
    """Yield the sentences of a split of MELD and their class as sentiment (Poria et al. 2019).

    Args:
        path: CSV with the columns `text,sentiment`.

    Raises:
        DataError: If it cannot be read, or a class is unknown.
    """
    for row in read_table(path, "text", "sentiment"):
        if row["sentiment"] not in DIALOGUE:
            raise DataError(
                f"{path}: sentiment {row['sentiment']!r} is not one of {', '.join(DIALOGUE)}"
            )
        yield row["text"].replace("\x92", "\u2019").strip(), DIALOGUE[row["sentiment"]]


def emobank(path: Path) -> Iterator[tuple[str, float]]:
    """Yield the sentences of a split of EmoBank and their valence as sentiment.

    Args:
        path: CSV with the columns `text,V`; V in [1, 5] (Buechel and Hahn 2017).

    Raises:
        DataError: If it cannot be read, or a valence is no number.
    """
    for row in read_table(path, "text", "V"):
        try:
            valence = float(row["V"])
        except ValueError:
            raise DataError(f"{path}: V {row['V']!r} is no number: give one in [1, 5]") from None
        if text := row["text"].strip():
            yield text, VALENCE_SCALE * (valence - 3.0)


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    """Return the content of the member whose path ends in a name, at most 64 MiB of it."""
    for member in archive:
        if member.isfile() and member.name.endswith(f"/{name}"):
            file = archive.extractfile(member)
            return file.read(LONGEST) if file else b""
    raise KeyError(f"no {name} in it")
