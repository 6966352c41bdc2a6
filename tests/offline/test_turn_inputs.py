"""What a sentence or a clip brings to a session, and when."""

from pathlib import Path

import pytest

from support.sound_files import sound_file
from support.speech import packaged, read
from support.turns import by_length
from tamulag.models.data.clips import MediaRow, TextRow
from tamulag.models.text.text_encoder import encoder_for
from tamulag.streamer.core.sample import Phrase, Sample
from tamulag.streamer.features.asr.transcript import MAX_WORDS
from tamulag.streamer.offline.extract import Speech
from tamulag.streamer.offline.turn_inputs import (
    TurnInputs,
    media_streams,
    phrases,
    sizes,
    text_streams,
)


def ignored(_: object) -> None:
    """Take what nobody asks for here."""


def test_the_words_of_a_sentence_come_as_it_is_said() -> None:
    """Every half second those that have ended; the last phrase is final and whole."""
    found = phrases(["a", "bb", "ccc", "dddd"], by_length, seconds=2.0, step=0.5)
    assert [(one.timestamp, len(one.words), one.final) for one in found] == [
        (0.5, 1, False),
        (1.0, 2, False),
        (1.5, 3, False),
        (2.0, 4, True),
    ]


def test_a_long_sentence_is_several_utterances() -> None:
    """As the transcript splits it live; no word is lost or said twice."""
    words = [str(k) for k in range(2 * MAX_WORDS + 5)]
    found = phrases(words, by_length, seconds=len(words) / 2.5, step=0.5)
    whole = [one for one in found if one.final]
    assert [len(one.words) for one in whole] == [MAX_WORDS, MAX_WORDS, 5]
    assert [one.utterance for one in whole] == [0, 1, 2]
    assert [word.text for one in whole for word in one.words] == words
    assert all(one.words[-1].end <= one.timestamp + 1e-6 for one in found)


def test_rows_of_a_video_are_in_their_order() -> None:
    """A row without words is a turn in which nothing is said, as long as a hop."""
    rows = [
        TextRow("so bad", -1.0, "v", place=2.0),
        TextRow("", 0.0, "w"),
        TextRow("so very good", 1.0, "v", place=1.0),
    ]
    streams = text_streams(rows, encoder_for("default"), 0.5, ignored)
    assert sorted([one.label for one in turns] for turns in streams) == [[0.0], [1.0, -1.0]]
    [nothing] = next(turns for turns in streams if len(turns) == 1)
    assert (list(nothing.inputs), nothing.length) == ([], 0.5)
    assert sizes(streams) == {"text": {384}}


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Return three seconds of speech."""
    path = tmp_path / "a.wav"
    sound_file(path, read(packaged("moonshine_voice", "assets/beckett.wav"))[:48000])
    return path


def played(row: MediaRow, speech: Speech = "none") -> TurnInputs:
    encoder = encoder_for("default")
    [[found]] = media_streams([row], encoder, 0.5, ignored, speech=speech, failed=ignored)
    return found


def test_a_text_is_spread_over_its_clip(sound: Path) -> None:
    """It replaces what a recogniser would hear; all comes in the order of its times."""
    found = played(MediaRow(sound, 1.0, "good day", "one"), "moonshine")
    assert found.length == pytest.approx(3.0, abs=0.1)
    spoken = [item for item in found.inputs if isinstance(item, Phrase)]
    assert [word.text for word in spoken[-1].words] == ["good", "day"]
    assert spoken[-1].timestamp == found.length
    times = [item.timestamp for item in found.inputs]
    assert times == sorted(times)
    assert any(isinstance(item, Sample) for item in found.inputs)


def test_words_are_recognised_where_there_is_no_text(sound: Path) -> None:
    """With the states of the checkpoint's encoder, by the end of the clip."""
    found = played(MediaRow(sound, 1.0, "", "one"), "moonshine")
    spoken = [item for item in found.inputs if isinstance(item, Phrase) and item.words]
    assert spoken
    assert spoken[-1].final
    assert spoken[-1].values.shape == (len(spoken[-1].word_of_token), 384)
    assert spoken[-1].timestamp <= found.length + 0.1
    silent = played(MediaRow(sound, 1.0, "", "one"))
    assert not [item for item in silent.inputs if isinstance(item, Phrase)]


def test_of_a_file_that_cannot_be_read_the_text_counts(tmp_path: Path) -> None:
    """It is named, and its words are said at the rate of speech."""
    broken, problems = tmp_path / "broken.wav", list[str]()
    broken.write_text("no sound")
    rows = [MediaRow(broken, 1.0, "one two three four five", "one")]
    [[found]] = media_streams(rows, encoder_for("default"), 0.5, ignored, failed=problems.append)
    assert found.length == 2.0
    assert {type(item) for item in found.inputs} == {Phrase}
    assert len(problems) == 1
    assert "broken.wav" in problems[0]
