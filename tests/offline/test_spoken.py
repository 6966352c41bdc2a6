"""Sentences are really spoken by espeak-ng and really recognised."""

import shutil

import numpy as np
import pytest

from tamulag.models.data.clips import DataError, TextRow
from tamulag.streamer.offline.spoken import SPEAKER, speak, spoken

pytestmark = pytest.mark.skipif(
    shutil.which(SPEAKER) is None, reason=f"needs {SPEAKER}: apt install {SPEAKER}"
)


def test_a_sentence_comes_back_nearly_as_it_was() -> None:
    """With its label; what nobody can hear is left out."""
    rows = [
        TextRow("IT IS A LOT OF FUN TO WATCH", 2.2, "a"),
        TextRow("", -1.0, "b"),
        TextRow("I DID NOT LIKE THE STORY OF IT AT ALL", -2.5, "c"),
    ]
    done: list[int] = []
    found = list(spoken(rows, done.append))
    assert [label for _, label in found] == [2.2, -2.5]
    for (text, _), row in zip(found, (rows[0], rows[2]), strict=True):
        words = row.text.split()
        assert len(set(words) & set(text.upper().split())) > len(words) / 2
    assert done == [1, 2, 3]


def test_voice_and_pace_change() -> None:
    """One sentence, several speakers."""
    sounds = [speak("it was good", place) for place in range(4)]
    assert len({len(sound) for sound in sounds}) == 4
    assert all(0.05 < np.abs(sound).max() <= 1 for sound in sounds)


def test_a_missing_speaker_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setenv("PATH", "")
    done: list[int] = []
    with pytest.raises(DataError, match=f"apt install {SPEAKER}"):
        list(spoken([TextRow("good", 1.0, "a")], done.append))
