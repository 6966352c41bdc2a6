import csv
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from support.speech import PAUSE, feed, finals, hear, in_order, packaged, read
from tamulag.streamer.core.sample import SAMPLE_RATE, Array
from tamulag.streamer.core.source import SourceError, SourceLost
from tamulag.streamer.features import pretrained
from tamulag.streamer.features.asr import moonshine
from tamulag.streamer.features.asr.moonshine import MoonshineRecogniser
from tamulag.streamer.features.asr.transcript import Hypothesis

pytestmark = pytest.mark.timeout(300)


def word_error_rate(reference: str, said: str) -> float:
    right, heard = (re.sub("[^a-z ]", "", text.lower()).split() for text in (reference, said))
    row = list(range(len(heard) + 1))
    for i, word in enumerate(right, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            best = min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
            diagonal, row[j] = row[j], best
    return row[-1] / len(right)


@pytest.fixture
def engine() -> Iterator[MoonshineRecogniser]:
    recogniser = MoonshineRecogniser()
    yield recogniser
    recogniser.close()


@pytest.fixture(scope="module")
def beckett() -> Array:
    """Six short sentences in ten seconds."""
    return read(packaged("moonshine_voice", "assets/beckett.wav"))


@pytest.fixture(scope="module")
def whole(beckett: Array) -> list[Hypothesis]:
    """All that is recognised of it, in blocks of 100 ms; all work is done by the caller."""
    recogniser = MoonshineRecogniser()
    busy, mine = time.process_time(), time.thread_time()
    found = hear(recogniser, beckett)
    busy, mine = time.process_time() - busy, time.thread_time() - mine
    recogniser.close()
    assert busy < 1.3 * mine, "a thread waits busily for work"
    return found


def said(hypotheses: list[Hypothesis]) -> str:
    return " ".join(word.text for words in finals(hypotheses) for word in words)


@pytest.mark.data
def test_recognises_real_speech(engine: MoonshineRecogniser, data: Path) -> None:
    """The word error rate is below 0.2 on each English file and below 0.1 on average."""
    rates = []
    with (data / "asr" / "asr.csv").open(newline="") as table:
        for row in csv.DictReader(table):
            if row["language"] == "en":
                text = said(hear(engine, read(data / "asr" / row["file"])))
                rates.append(word_error_rate(row["transcript"], text))
                print(f"{row['file']:34} {rates[-1]:.2f}  {text}")
    assert len(rates) >= 7
    assert max(rates) < 0.2
    assert np.mean(rates) < 0.1


def test_finds_each_sentence(whole: list[Hypothesis], beckett: Array) -> None:
    """The packaged speech comes out sentence by sentence, with rising times inside the sound."""
    lines = finals(whole)
    assert len(lines) == 6
    assert " ".join(w.text for w in lines[0] + lines[1]) == "Ever tried. Ever failed."
    assert all(in_order(line, 0.0, len(beckett) / SAMPLE_RATE) for line in lines)
    assert [line[0].start for line in lines] == sorted(line[0].start for line in lines)


def test_gives_partials(whole: list[Hypothesis]) -> None:
    """Each utterance has hypotheses before it ends, and is closed by exactly one final."""
    for number in {h.utterance for h in whole}:
        ends = [h.final for h in whole if h.utterance == number]
        assert ends == [False] * (len(ends) - 1) + [True]
        assert len(ends) > 1


def assert_same(one: list[Hypothesis], other: list[Hypothesis]) -> None:
    """Assert equal finals; the speech detector rounds as memory lies, so edges differ by a step."""
    assert said(one) == said(other)
    for left, right in zip(finals(one), finals(other), strict=True):
        starts = [word.start for word in left]
        assert [word.start for word in right] == pytest.approx(starts, abs=0.1)


def test_does_not_depend_on_block_size(
    engine: MoonshineRecogniser, whole: list[Hypothesis], beckett: Array
) -> None:
    """Blocks of 20 ms give the same words and times as those of 100 ms, in a second run."""
    assert_same(hear(engine, beckett, size=320), whole)


def test_closes_an_open_line(engine: MoonshineRecogniser, beckett: Array) -> None:
    """Sound that ends inside a sentence gives a final of what was heard."""
    *_, last = hear(engine, beckett[: round(1.3 * SAMPLE_RATE)])
    assert last.final
    assert last.words[0].text == "Ever"


def test_hears_a_short_gap_as_silence(beckett: Array) -> None:
    """Two seconds that never came give the same words and times as two seconds of zeros."""
    runs = []
    for gap in (PAUSE, PAUSE[:0]):
        recogniser = MoonshineRecogniser()
        heard = feed(recogniser, np.concatenate((beckett[:48000], gap)))
        runs.append(heard + hear(recogniser, beckett[48000:], 48000 + len(PAUSE)))
        recogniser.close()
    assert_same(*runs)


def test_restarts_after_a_long_gap(engine: MoonshineRecogniser, beckett: Array) -> None:
    """After a minute without sound numbers go on and word times are the session's."""
    feed(engine, beckett[:48000])
    later = [h for h in hear(engine, beckett, 60 * SAMPLE_RATE) if h.final and h.words]
    assert later[0].utterance < later[-1].utterance
    assert later[-6].utterance == 2
    assert in_order(later[-6].words, 60.0, 62.0)


def test_loses_no_word_at_a_new_stream(
    engine: MoonshineRecogniser,
    whole: list[Hypothesis],
    beckett: Array,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Streams exchanged between sentences, to free their memory, leave words and times alone."""
    monkeypatch.setattr(moonshine, "RENEW", 2.0)
    parts = hear(engine, beckett)
    assert word_error_rate(said(whole), said(parts)) < 0.2
    starts = [[line[0].start for line in finals(found)] for found in (whole, parts)]
    assert starts[1] == pytest.approx(starts[0], abs=0.3)


@pytest.mark.parametrize("pause", [0.7, 0.9, 1.2, 2.0])
def test_finishes_in_a_pause_without_partials(
    engine: MoonshineRecogniser, beckett: Array, pause: float
) -> None:
    """A line that has ended and was not transcribed yet is no failure, nor is it lost."""
    engine.partials = False
    silence = np.zeros(round(pause * SAMPLE_RATE), np.float32)
    heard = finals(hear(engine, np.concatenate([beckett[: 3 * SAMPLE_RATE], silence])))
    assert [words[0].text for words in heard] == ["Ever", "Ever"]


def test_finishes_without_sound(engine: MoonshineRecogniser) -> None:
    """Nothing heard has no words, and closing twice is allowed."""
    assert engine.finish() == []
    engine.close()


@pytest.mark.parametrize("kind", ["silence", "hum", "white", "clicks"])
def test_makes_no_words_of_what_is_no_speech(engine: MoonshineRecogniser, kind: str) -> None:
    """Six seconds of a quiet room, of mains, of noise and of a clock."""
    time = np.arange(6 * SAMPLE_RATE) / SAMPLE_RATE
    sound = {
        "silence": np.zeros_like(time),
        "hum": 0.1 * np.sin(2 * np.pi * 50 * time),
        "white": np.random.default_rng(3).normal(0, 0.03, time.shape),
        "clicks": 0.5 * np.exp(-60 * (time % 0.7)) * np.sin(2 * np.pi * 900 * time),
    }[kind]
    assert finals(hear(engine, sound.astype(np.float32))) == []


def test_that_fails_is_lost(
    engine: MoonshineRecogniser, beckett: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure inside the engine arrives as a lost source with its reason."""
    from moonshine_voice import MoonshineError
    from moonshine_voice.transcriber import Stream

    def fail(*_: object) -> None:
        raise MoonshineError("out of memory")

    monkeypatch.setattr(Stream, "add_audio", fail)
    with pytest.raises(SourceLost, match="out of memory") as lost:
        feed(engine, beckett)
    assert lost.value.reason == "asr_lost"


@pytest.mark.parametrize("call", ["add_audio", "stop"])
def test_that_fails_at_the_end_is_lost(
    engine: MoonshineRecogniser, beckett: Array, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """A failure while the last words are asked for is a loss too, not a bug."""
    from moonshine_voice import MoonshineError
    from moonshine_voice.transcriber import Stream

    def fail(*_: object) -> None:
        raise MoonshineError("out of memory")

    engine.accept(beckett[:20000], 0)
    monkeypatch.setattr(Stream, call, fail)
    with pytest.raises(SourceLost, match="out of memory"):
        engine.finish()


def test_works_again_when_reloaded(engine: MoonshineRecogniser, beckett: Array) -> None:
    """After a loss the numbers of utterances go on and times are the session's."""
    before = feed(engine, beckett[:48000])
    engine.reopen()
    later = hear(engine, beckett, 10 * SAMPLE_RATE)
    assert said(later).startswith("Ever tried. Ever failed.")
    assert min(h.utterance for h in later) > max(h.utterance for h in before)
    assert min(word.start for h in later for word in h.words) >= 10.0


def test_without_weights_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later versions of the package carry no weights; the message says which one does."""
    monkeypatch.setattr(pretrained, "package_folder", lambda _: tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(SourceError, match=r"pip install moonshine-voice==0\.1\.0"):
        MoonshineRecogniser()


def test_needs_no_portaudio() -> None:
    """The recogniser loads where sounddevice cannot be imported."""
    code = (
        "import sys; sys.modules['sounddevice'] = None; "
        "from tamulag.streamer.features.asr.open import open_recogniser; "
        "open_recogniser('auto', None).close()"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
