"""The offline path against the live one, on scripted inputs with everything in them."""

from collections.abc import Sequence

import numpy as np
import pytest

from support.recordings import CARD, HEADER, phrase
from tamulag.models import TamUlag
from tamulag.models.runtime.torch_engine import TorchEngine
from tamulag.streamer.core.sample import Array, Input, Phrase, Sample
from tamulag.streamer.core.session import Session
from tamulag.streamer.offline.reference_scorer import scores
from tamulag.streamer.offline.verify import SessionTrace

ASKED = ("text", "audio", "vision")
Numbers = list[float | None]
"""End of a hop, fused score, scores of text, audio and vision."""


def encode(words: Sequence[str]) -> tuple[Array, tuple[int, ...]]:
    """Encode as `recorded.phrase` does."""
    given = phrase(1.0, 0, *words)
    return given.values, given.word_of_token


def both(model: TamUlag, items: Sequence[Input]) -> tuple[list[Numbers], list[Numbers]]:
    session = Session(TorchEngine(model), CARD, ASKED, HEADER.timing)
    kept = session.observer = SessionTrace()
    live = [e for item in items for e in session.push(item)] + session.close()
    found = [item for item in items if not isinstance(item, Phrase)]
    offline = scores(
        model, CARD, found, kept.phrases, asked=ASKED, timing=HEADER.timing, encode=encode
    )
    numbers: list[Numbers] = [
        [e.end, e.sentiment, *(e.modalities[name].sentiment for name in ASKED)] for e in live
    ]
    return numbers, [[s.end, s.sentiment, *s.heads.values()] for s in offline]


def assert_equal(live: list[Numbers], offline: list[Numbers]) -> None:
    assert len(live) == len(offline)
    for one, other in zip(live, offline, strict=True):
        assert [x is None for x in one] == [x is None for x in other]
        assert one == pytest.approx(other, abs=1e-5)


def scripted(seconds: float, holes: dict[str, tuple[float, float]], *words: Phrase) -> list[Input]:
    """Return voice and face with a hole each, and words when they become available."""
    random = np.random.default_rng(3)
    items: list[Input] = []
    for tick in range(round(seconds * 50)):
        at = tick / 50
        items += [w for w in words if at <= w.timestamp < at + 0.02]
        for name, size in (("audio", 4), ("vision", 3)):
            start, stop = holes.get(name, (0.0, 0.0))
            if name == "audio" or tick % 5 == 3:
                values = None if start <= at < stop else random.normal(size=size)
                vector = None if values is None else values.astype(np.float32)
                items.append(Sample(name, at, vector))  # type: ignore[arg-type]
    return items


def test_both_ways_agree_while_all_is_there(model: TamUlag) -> None:
    """Words that are revised included."""
    words = (phrase(1.2, 0, "good", final=False), phrase(2.0, 0, "good", "morning"))
    assert_equal(*both(model, scripted(5.0, {}, *words)))


def test_both_ways_start_afresh_after_a_long_gap(model: TamUlag) -> None:
    """A voice that was silent for 3 s and a face that was away for 2 s are new ones."""
    assert_equal(*both(model, scripted(8.0, {"audio": (2.0, 5.1), "vision": (3.0, 5.3)})))


def test_both_ways_forget_words_after_a_long_silence(model: TamUlag) -> None:
    """What is said later is scored without what was said before."""
    words = (phrase(1.0, 0, "bad"), phrase(6.0, 1, "good", "day", "to", "you"))
    assert_equal(*both(model, scripted(8.0, {}, *words)))


def test_the_last_hop_may_be_short(model: TamUlag) -> None:
    """Both end with the tenth of a second in which the last sample lies."""
    live, offline = both(model, scripted(2.26, {}))
    assert [row[0] for row in live][-2:] == [2.0, 2.3]
    assert_equal(live, offline)


def test_a_difference_shows(model: TamUlag) -> None:
    """The comparison is not blind: one other vector changes a score by more than 1e-5."""
    items = scripted(3.0, {})
    live, _ = both(model, items)
    items[60] = Sample("audio", items[60].timestamp, np.full(4, 0.5, np.float32))
    _, offline = both(model, items)
    with pytest.raises(AssertionError):
        assert_equal(live, offline)


def test_nothing_gives_no_hops(model: TamUlag) -> None:
    """A file in which nothing was found is no error."""
    assert both(model, []) == ([], [])
