import ctypes
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from support.speech import PAUSE, feed, finals, hear, in_order, read
from tamulag.streamer.core.sample import SAMPLE_RATE, Array
from tamulag.streamer.core.source import SourceError
from tamulag.streamer.features.asr.transcript import Hypothesis
from tamulag.streamer.features.asr.vosk import VoskRecogniser

# Korean, spoken by espeak-ng. The voice is too poor for the words to be right; what is
# tested is what the adapter makes of partials, finals and times. Vosk adds random noise to the
# sound, drawn from the C library, so two runs are equal only from the same seed.


def seed() -> None:
    ctypes.CDLL(None).srand(1)


@pytest.fixture(scope="module")
def korean(tmp_path_factory: pytest.TempPathFactory) -> Array:
    """Two seconds of Korean speech."""
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng is missing: apt-get install espeak-ng")
    path = tmp_path_factory.mktemp("korean") / "speech.wav"
    text = "나는 학교에 갑니다"
    subprocess.run(["espeak-ng", "-v", "ko", "-s", "130", "-w", path, text], check=True, timeout=20)
    return read(path)


@pytest.fixture(scope="module")
def once(vosk: VoskRecogniser, korean: Array) -> list[Hypothesis]:
    """All that is recognised of it."""
    seed()
    return hear(vosk, korean)


@pytest.fixture(scope="module")
def twice(vosk: VoskRecogniser, korean: Array) -> list[Hypothesis]:
    """All that is recognised of it said twice, with a pause of two seconds."""
    seed()
    return hear(vosk, np.concatenate((korean, PAUSE, korean)))


def test_gives_partials_then_a_final(twice: list[Hypothesis]) -> None:
    """An utterance is told by growing partials and closed by one final of the same number."""
    first = min(h.utterance for h in twice if h.words)
    heard = [h for h in twice if h.words and h.utterance == first]
    assert [h.final for h in heard] == [False] * (len(heard) - 1) + [True]
    assert len(heard) > 1


def test_word_times_lie_inside_the_sound(once: list[Hypothesis], korean: Array) -> None:
    """Word times rise, lie inside the sound, and each word has a confidence."""
    (words,) = finals(once)
    assert in_order(words, 0.0, len(korean) / SAMPLE_RATE)
    assert all(word.confidence is not None and 0 <= word.confidence <= 1 for word in words)


def test_times_of_a_second_utterance_continue(twice: list[Hypothesis], korean: Array) -> None:
    """The second utterance has a higher number and lies where it was spoken."""
    said = [h for h in twice if h.final and h.words]
    assert said[0].utterance < said[1].utterance
    second = (len(korean) + len(PAUSE)) / SAMPLE_RATE
    assert in_order(said[1].words, second - 0.1, second + len(korean) / SAMPLE_RATE)


def test_times_count_from_the_session_start(
    vosk: VoskRecogniser, korean: Array, once: list[Hypothesis]
) -> None:
    """Sound that begins 10 s into the session gives word times 10 s later."""
    (early,) = finals(once)
    seed()
    (late,) = finals(hear(vosk, korean, 10 * SAMPLE_RATE))
    assert [w.start for w in late] == pytest.approx([w.start + 10 for w in early])


def test_hears_a_short_gap_as_silence(
    vosk: VoskRecogniser, korean: Array, twice: list[Hypothesis]
) -> None:
    """Two seconds that never came give the same words and times as two seconds of zeros."""
    seed()
    torn = feed(vosk, korean) + hear(vosk, korean, len(korean) + len(PAUSE))
    assert finals(torn) == finals(twice)


def test_restarts_after_a_long_gap(vosk: VoskRecogniser, korean: Array) -> None:
    """After a minute without sound the utterance is closed and the next has its own true times."""
    length = len(korean) / SAMPLE_RATE
    before, after = finals(feed(vosk, korean) + hear(vosk, korean, 60 * SAMPLE_RATE))
    assert in_order(before, 0.0, length)
    assert in_order(after, 60.0, 60.0 + length)


def test_skips_known_sound(vosk: VoskRecogniser, korean: Array, once: list[Hypothesis]) -> None:
    """A block that overlaps the last one adds only its new samples."""
    (alone,) = finals(once)
    seed()
    twice = feed(vosk, korean[:16000]) + hear(vosk, korean[8000:], 8000)
    (same,) = finals(twice)
    # The noise of the second run need not be that of the first: another thread may draw from it.
    assert [word.text for word in same] == [word.text for word in alone]
    for one, other in zip(same, alone, strict=True):
        assert (one.start, one.end) == pytest.approx((other.start, other.end), abs=0.1)


def test_does_not_depend_on_block_size(
    vosk: VoskRecogniser, korean: Array, once: list[Hypothesis]
) -> None:
    """Blocks of a second give the same hypotheses as those of a tenth."""
    seed()
    coarse = hear(vosk, korean, size=16000)
    assert [(h.words, h.final) for h in coarse] == [(h.words, h.final) for h in once]


def test_repeats_no_partial(once: list[Hypothesis]) -> None:
    """An answer the decoder merely repeats is not told, for it would count as agreement."""
    heard = [h.words for h in once if not h.final]
    assert all(a != b for a, b in pairwise(heard))


def test_finishes_without_sound(vosk: VoskRecogniser) -> None:
    """Nothing heard has no words."""
    assert finals(vosk.finish()) == []


@pytest.mark.parametrize("broken", [False, True], ids=["missing", "broken"])
def test_without_a_model_names_the_remedy(tmp_path: Path, broken: bool) -> None:
    """A folder that holds no usable model is refused with its name and what to run."""
    if broken:
        (tmp_path / "final.mdl").write_text("no model")
    with pytest.raises(SourceError, match=rf"{tmp_path.name}.*`tamulag models fetch NAME`"):
        VoskRecogniser(tmp_path)


def test_works_again_with_a_new_engine(vosk: VoskRecogniser, korean: Array) -> None:
    """After a loss the numbers of utterances go on and times are the session's."""
    before = feed(vosk, korean)
    vosk.reopen()
    later = [h for h in hear(vosk, np.concatenate((korean, PAUSE)), 10 * SAMPLE_RATE) if h.words]
    assert later[0].utterance > max(h.utterance for h in before)
    assert later[-1].words[0].start >= 10.0
