from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from support.speech import hear, packaged, read
from tamulag.models.text.text_encoder import TextEncoder
from tamulag.streamer.core.sample import SAMPLE_RATE, Array, Phrase, Word
from tamulag.streamer.core.source import SourceError
from tamulag.streamer.features.asr.moonshine import MoonshineRecogniser
from tamulag.streamer.features.asr.open import open_recogniser
from tamulag.streamer.features.asr.recogniser import PhraseRecogniser, Steps
from tamulag.streamer.features.asr.transcript import Hypothesis
from tamulag.streamer.features.asr.vosk import VoskRecogniser


class Script:
    """A recogniser that says what it was given, one hypothesis per block."""

    partials = True

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)

    def accept(self, block: Array, start: int) -> list[Hypothesis]:
        words = tuple(Word(text, 0.0, 0.1) for text in self.texts.pop(0).split())
        return [Hypothesis(0, words, final=not self.texts)]

    def finish(self) -> list[Hypothesis]:
        return []

    def reopen(self) -> None:
        """Say the same."""

    def close(self) -> None:
        self.texts = []


def lengths(words: Sequence[str]) -> tuple[Array, tuple[int, ...]]:
    """Encode each word as one token that holds its length."""
    values = np.array([[len(word)] for word in words], np.float32).reshape(-1, 1)
    return values, tuple(range(len(words)))


def listen(listener: PhraseRecogniser, blocks: int) -> list[Phrase]:
    block = np.zeros(1600, np.float32)
    return [phrase for n in range(blocks) for phrase in listener.push(block, 1600 * n)]


def test_phrases_carry_the_committed_words_encoded() -> None:
    """A phrase holds the stable words, their states, and the unstable rest as tail."""
    phrase = listen(PhraseRecogniser(Script("so it", "so we go", "x"), lengths), 2)[-1]
    assert [word.text for word in phrase.words] == ["so"]
    assert phrase.values.tolist() == [[2.0]]
    assert phrase.word_of_token == (0,)
    assert (phrase.tail, phrase.final) == ("we go", False)


def test_phrases_are_stamped_in_stream_time() -> None:
    """Without a clock a phrase is stamped with the end of the block that brought it."""
    phrases = listen(PhraseRecogniser(Script("so", "so it"), lengths), 2)
    assert [phrase.timestamp for phrase in phrases] == pytest.approx([0.1, 0.2])


def test_phrases_are_stamped_by_the_clock_when_live() -> None:
    """With a clock a phrase is stamped when it really became available."""
    listener = PhraseRecogniser(Script("so", "so it"), lengths, now=lambda: 7.5)
    assert [phrase.timestamp for phrase in listen(listener, 2)] == [7.5, 7.5]


def test_words_are_encoded_once() -> None:
    """A phrase in which only the tail or the finality changed is not encoded again."""
    encoded: list[Sequence[str]] = []

    def encode(words: Sequence[str]) -> tuple[Array, tuple[int, ...]]:
        encoded.append(words)
        return lengths(words)

    listen(PhraseRecogniser(Script("so", "so it", "so we", "so us", "so"), encode), 5)
    assert encoded == [(), ("so",)]


def test_speech_becomes_phrases_with_token_states() -> None:
    """Real speech, real recogniser, real encoder: final phrases with states for every word."""
    beckett = read(packaged("moonshine_voice", "assets/beckett.wav"))
    listener = PhraseRecogniser(MoonshineRecogniser(), TextEncoder().encode)
    phrases = []
    for i in range(0, len(beckett), 1600):
        phrases += listener.push(beckett[i : i + 1600], i)
    phrases += listener.finish()
    listener.close()
    done = [phrase for phrase in phrases if phrase.final]
    assert [phrase.utterance for phrase in done] == [0, 1, 2, 3, 4, 5]
    assert all(phrase.values.shape[1] == 384 for phrase in done)
    assert all(set(p.word_of_token) == set(range(len(p.words))) for p in done)
    assert all(p.timestamp >= p.words[-1].start for p in phrases if p.words)
    assert any(phrase.words and not phrase.final for phrase in phrases)


def test_auto_is_moonshine_without_a_model() -> None:
    """Without a model folder `auto` takes the bundled English one."""
    recogniser = open_recogniser("auto", None)
    assert isinstance(recogniser, MoonshineRecogniser)
    recogniser.close()


def test_auto_is_vosk_with_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model folder makes `auto` vosk."""
    monkeypatch.setattr(VoskRecogniser, "__init__", lambda self, folder: None)
    assert isinstance(open_recogniser("auto", "model"), VoskRecogniser)


def test_none_recognises_nothing() -> None:
    """`none` opens no recogniser."""
    assert open_recogniser("none", None) is None


def test_vosk_needs_a_model() -> None:
    """`vosk` without a folder is refused with what to run."""
    with pytest.raises(SourceError, match="tamulag models fetch NAME"):
        open_recogniser("vosk", None)


def ramp(first: int, last: int) -> Array:
    return np.arange(first, last, dtype=np.float32)


def test_steps_are_equal_whatever_the_blocks() -> None:
    """Blocks of any size come out in steps of the given length; the rest waits."""
    steps = Steps(4)
    out = steps.push(ramp(0, 3), 100) + steps.push(ramp(3, 9), 103)
    assert [step.tolist() for step in out] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert steps.rest().tolist() == [8]
    assert steps.base == 100


def test_steps_fill_a_gap_with_zeros() -> None:
    """Samples that never came are zeros in their place."""
    steps = Steps(4)
    out = steps.push(ramp(1, 3), 0) + steps.push(ramp(5, 7), 4)
    assert [step.tolist() for step in out] == [[1, 2, 0, 0]]
    assert steps.rest().tolist() == [5, 6]


def test_steps_skip_what_came_before() -> None:
    """Samples that overlap the block before are not told twice."""
    steps = Steps(4)
    out = steps.push(ramp(0, 3), 0) + steps.push(ramp(0, 2), 0) + steps.push(ramp(1, 5), 1)
    assert [step.tolist() for step in out] == [[0, 1, 2, 3]]


def test_steps_are_torn_after_five_seconds() -> None:
    """A gap of five seconds is filled, a longer one is a tear; the first block is never torn."""
    steps = Steps(4)
    assert not steps.is_torn(10**6)
    steps.push(ramp(0, 4), 0)
    assert not steps.is_torn(4 + 5 * SAMPLE_RATE)
    assert steps.is_torn(5 + 5 * SAMPLE_RATE)


def test_partials_are_given_up_by_the_recogniser() -> None:
    """Who relieves the listener relieves the engine behind it."""
    script = Script("so good")
    listener = PhraseRecogniser(script, lengths)
    listener.partials = False
    assert script.partials is False


@pytest.mark.data
@pytest.mark.parametrize("engine", ["moonshine", "vosk"])
def test_without_partials_there_are_finals_only(
    data: Path, engine: str, vosk: VoskRecogniser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words come all the same, when their utterance is over."""
    recogniser = MoonshineRecogniser() if engine == "moonshine" else vosk
    monkeypatch.setattr(recogniser, "partials", False)
    seconds = 2 if engine == "moonshine" else 1  # a model of another language decodes for long
    sound = read(data / "asr" / "LJ001-0002.wav")[: seconds * SAMPLE_RATE]
    found = hear(recogniser, sound)
    assert found
    assert all(hypothesis.final for hypothesis in found)
    assert any(hypothesis.words for hypothesis in found)
    if recogniser is not vosk:
        recogniser.close()
