"""Which turn attention is on, and its share of the context."""

import numpy as np
import pytest

from tamulag.models.runtime.card import Card
from tamulag.streamer.core.estimate import Timing
from tamulag.streamer.core.sample import Phrase, Sample, Word
from tamulag.streamer.core.step_builder import StepBuilder
from tamulag.streamer.core.turns import PAUSE, SOUND, TextTurn, VoiceTurn

CARD = Card(trained=dict.fromkeys(("sentiment", "text", "audio", "vision"), True))


def test_the_voice_begins_a_turn_after_a_pause() -> None:
    """A gap of the pause's length is none yet, one more tick is."""
    turn = VoiceTurn()
    turn.add(np.arange(10, 40))
    assert (turn.since, turn.heard) == (10, 30)
    turn.add(np.arange(39 + PAUSE, 50 + PAUSE))
    assert (turn.since, turn.heard) == (10, 41)
    turn.add(np.arange(50 + 2 * PAUSE, 60 + 2 * PAUSE))
    assert (turn.since, turn.heard) == (50 + 2 * PAUSE, 10)


def test_a_pause_inside_a_hop_counts() -> None:
    """Of two turns in one hop the later one is the turn."""
    turn = VoiceTurn()
    turn.add(np.array([*range(5), *range(5 + PAUSE, 12 + PAUSE)]))
    assert (turn.since, turn.heard) == (5 + PAUSE, 7)


def test_the_share_grows_and_is_whole_at_the_end() -> None:
    """With a second of sound, or as soon as the voice pauses."""
    turn = VoiceTurn()
    turn.add(np.arange(SOUND // 2))
    end = SOUND // 2
    assert turn.share(end) == pytest.approx(0.5)
    assert turn.share(end + PAUSE) == 1.0
    turn.add(np.arange(end, 2 * SOUND))
    assert turn.share(2 * SOUND) == 1.0


def test_the_share_of_words_grows_until_the_utterance_is_final() -> None:
    """One word of four is a quarter; a final utterance of one word is whole."""
    turn = TextTurn()
    assert turn.share == 1.0
    turn.set(phrase(0, ["well"]), 7)
    assert (turn.since, turn.share) == (7, 0.25)
    turn.set(phrase(0, ["well"], final=True), 7)
    assert turn.share == 1.0


def test_a_step_names_the_turns() -> None:
    """A second utterance moves the beginning, and with `window` none is named."""
    for timing, since in ((Timing(), (40, 0)), (Timing(attention="window"), (0, 0))):
        builder = StepBuilder({"audio": 4}, CARD, ("text", "audio"), timing)
        builder.push(phrase(0, ["so", "bad"], at=0.4, final=True))
        builder.push(phrase(1, ["good"], at=0.99, start=0.8))
        steps = [
            step
            for tick in range(51)
            for step in builder.push(Sample("audio", tick / 50, np.ones(4, np.float32)))
        ]
        assert steps[-1].inputs.since == since
        assert steps[-1].inputs.share == ((0.25, 1.0) if any(since) else (1.0, 1.0))


def phrase(
    number: int, texts: list[str], *, at: float = 0.5, start: float = 0.0, final: bool = False
) -> Phrase:
    words = tuple(
        Word(text, start + 0.1 * k, start + 0.1 * k + 0.1) for k, text in enumerate(texts)
    )
    values = np.ones((len(words), 3), np.float32)
    return Phrase(at, number, words, values, tuple(range(len(words))), final)
