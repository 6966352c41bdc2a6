"""The pure core: inputs in, estimates out, whatever the order and the cut."""

import dataclasses
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tamulag.models import TamUlag, Ticks
from tamulag.models.runtime.checkpoint import Card
from tamulag.models.runtime.torch_engine import TorchEngine
from tamulag.streamer.core.commands import Push, SessionCommand
from tamulag.streamer.core.estimate import Estimate, Timing
from tamulag.streamer.core.sample import Input, Notice, Phrase, Sample, Word
from tamulag.streamer.core.session import Session
from tamulag.streamer.core.step_builder import WAITING_PHRASES

TRAINED = Card(trained=dict.fromkeys(("sentiment", "text", "audio", "vision"), True))
TIMING = Timing(
    window=2.0,
    stale_after={"text": 1.5, "audio": 0.5, "vision": 0.3},
    missing_after={"text": 2.0, "audio": 1.5, "vision": 1.0},
)
EVERY = ("text", "audio", "vision")


def new(model: TamUlag, asked: Iterable[str] = EVERY, card: Card = TRAINED) -> Session:
    return Session(TorchEngine(model), card, tuple(asked), TIMING)


def sound(first: float, last: float) -> list[Sample]:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((1000, 4)).astype(np.float32)
    return [Sample("audio", k / 50, rows[k]) for k in range(round(first * 50), round(last * 50))]


def faces(first: float, last: float, reason: str | None = None) -> list[Sample]:
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((1000, 3)).astype(np.float32)
    ticks = range(round(first * 10), round(last * 10))
    return [Sample("vision", k / 10 + 0.06, None if reason else rows[k], reason) for k in ticks]


def phrase(
    at: float, text: str, *, utterance: int = 0, final: bool = False, start: float = 0.0
) -> Phrase:
    """Return words of 0.2 s; the states of the tokens depend on all words, as BERT's do."""
    words = tuple(
        Word(w, start + 0.2 * i, start + 0.2 * (i + 1)) for i, w in enumerate(text.split())
    )
    rng = np.random.default_rng(abs(hash(text)) % 2**32)
    values = rng.standard_normal((len(words), 5)).astype(np.float32)
    return Phrase(at, utterance, words, values, tuple(range(len(words))), final)


def play(session: Session, items: Iterable[Input]) -> list[Estimate]:
    ordered = sorted(items, key=lambda item: item.timestamp)
    return [e for item in ordered for e in session.push(item)] + session.close()


def test_session_equals_the_model_on_the_whole_stream(model: TamUlag) -> None:
    """Live hops equal one offline `forward` over everything."""
    voice, face = sound(0, 3), faces(0, 3)
    live = play(new(model, ("audio", "vision")), [*voice, *face])

    def ticks(samples: list[Sample], period: int) -> Ticks:
        values = torch.tensor(np.stack([s.values for s in samples if s.values is not None]))[None]
        time = (torch.arange(len(samples)) * period)[None]
        return Ticks(values, torch.ones_like(time, dtype=torch.bool), time, time + period)

    now = torch.arange(25, 151, 25)[None]
    output = model.forward({"audio": ticks(voice, 1), "vision": ticks(face, 5)}, now)
    expected = pytest.approx(output.sentiment[0].tolist(), abs=1e-6, rel=0)
    assert [e.sentiment for e in live] == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(lag=st.floats(0, 0.17), other=st.floats(0, 0.17))
def test_arrival_order_does_not_change_estimates(model: TamUlag, lag: float, other: float) -> None:
    """Delays below lateness change nothing, to the bit."""
    words = [phrase(0.7, "so good"), phrase(1.4, "so good then", final=True)]
    stream: list[Input] = [*sound(0, 2), *faces(0, 2), *words]
    delays = {"audio": lag, "vision": other}

    def arrival(item: Input) -> float:
        return item.timestamp + (delays[item.modality] if isinstance(item, Sample) else 0.0)

    session = new(model)
    late = [e for item in sorted(stream, key=arrival) for e in session.push(item)]
    assert late + session.close() == play(new(model), stream)


def test_partials_leave_no_trace_once_the_final_is_there(model: TamUlag) -> None:
    """The state after a final is the same as if the partials had never come."""
    final = phrase(1.2, "not bad at all", final=True)
    after = phrase(2.2, "really", utterance=1, final=True, start=1.6)
    partials = [phrase(0.4, "not"), phrase(0.9, "not bad")]
    with_partials = play(new(model), [*sound(0, 3), *partials, final, after])
    without = play(new(model), [*sound(0, 3), final, after])
    assert [e.sentiment for e in with_partials[2:]] == [e.sentiment for e in without[2:]]
    assert with_partials[1].modalities["text"].sentiment is not None


def test_an_utterance_that_was_never_closed_counts_as_final(model: TamUlag) -> None:
    """A recogniser that goes on without a final loses nothing."""
    second = phrase(2.2, "really", utterance=1, final=True, start=1.6)
    closed = play(new(model), [*sound(0, 3), phrase(1.2, "not bad", final=True), second])
    left_open = play(new(model), [*sound(0, 3), phrase(1.2, "not bad"), second])
    assert [e.sentiment for e in closed] == [e.sentiment for e in left_open]


def test_words_count_from_the_time_they_became_available(model: TamUlag) -> None:
    """A word spoken at 0 s but known at 1.1 s does not change the hops before."""
    estimates = play(
        new(model, ("text", "audio")), [*sound(0, 2), phrase(1.1, "great", final=True)]
    )
    assert [e.modalities["text"].status for e in estimates] == ["missing", "missing", "ok", "stale"]
    assert estimates[2].attention["text"][0][:2] == ("great", 0.0)


def test_changed_words_raise_the_revision(model: TamUlag) -> None:
    """Growth is no revision; a changed word that was scored is one."""
    grown = [phrase(0.3, "so"), phrase(0.8, "so good"), phrase(1.3, "so bad")]
    estimates = play(new(model), [*sound(0, 2), *grown])
    assert [e.revision for e in estimates] == [0, 0, 1, 1]


def test_phrase_of_a_closed_utterance_is_dropped_and_counted(model: TamUlag) -> None:
    """What was final stays final."""
    session = new(model)
    play(session, [*sound(0, 2), phrase(0.4, "yes", final=True), phrase(1.2, "no", final=True)])
    assert session.late_phrases == 1


def test_silent_modality_becomes_stale_then_missing_and_recovers(model: TamUlag) -> None:
    """A face that leaves is reported at the right times, with the reason."""
    face = [*faces(0, 1), *faces(1, 3, reason="no_face"), *faces(3, 4)]
    estimates = play(new(model), [*sound(0, 4), *face])
    statuses = [(e.modalities["vision"].status, e.modalities["vision"].reason) for e in estimates]
    assert statuses == [
        ("ok", None),
        ("ok", None),
        ("stale", "no_face"),
        ("stale", "no_face"),
        ("missing", "no_face"),
        ("missing", "no_face"),
        ("ok", None),
        ("ok", None),
    ]


def test_lost_source_is_missing_at_once_and_out_of_the_score(model: TamUlag) -> None:
    """A pulled camera does not speak through old frames."""
    pulled = Notice(1.2, "vision", "camera_lost", "camera 0: no frame for 2 s")
    estimates = play(new(model), [*sound(0, 2), *faces(0, 1.2), pulled])
    last = estimates[2].modalities["vision"]
    assert (last.status, last.reason, last.sentiment, last.weight) == (
        "missing",
        "camera_lost",
        None,
        0,
    )
    assert estimates[1].modalities["vision"].status == "ok"


def test_missing_modality_starts_afresh(model: TamUlag) -> None:
    """After a long absence a face scores as if it were the first one."""
    back = play(new(model, ("vision",)), [*faces(0, 1), *faces(3, 4)])
    first = play(new(model, ("vision",)), faces(3, 4))
    assert back[-1].sentiment == first[-1].sentiment


def test_modality_that_was_not_asked_for_is_off(model: TamUlag) -> None:
    """Off is not missing."""
    estimates = play(new(model, ("audio",)), sound(0, 1))
    assert {n: m.status for n, m in estimates[-1].modalities.items()} == {
        "text": "off",
        "audio": "ok",
        "vision": "off",
    }


def test_untrained_head_gives_no_number(model: TamUlag) -> None:
    """An untrained head is reported as such instead of guessing."""
    card = Card(trained={"sentiment": False, "text": True, "audio": False, "vision": True})
    estimate = play(new(model, card=card), [*sound(0, 1), *faces(0, 1)])[-1]
    assert estimate.sentiment is None
    assert estimate.modalities["audio"].sentiment is None
    assert estimate.modalities["audio"].status == "untrained"
    assert estimate.modalities["vision"].sentiment is not None


def test_nothing_present_gives_no_number(model: TamUlag) -> None:
    """An empty room has no sentiment."""
    session = new(model)
    estimates = session.advance(1.4)
    assert [e.sentiment for e in estimates] == [None, None]
    assert estimates[0].modalities["vision"].reason == "no_picture"


def test_interval_is_that_of_the_present_modalities(model: TamUlag) -> None:
    """Each set of modalities has its own half width; one that was not calibrated has none."""
    card = Card(trained=TRAINED.trained, interval={"audio": 0.5})
    both = play(new(model, card=card), [*sound(0, 1), *faces(0, 1)])[-1]
    alone = play(new(model, card=card), sound(0, 1))[-1]
    assert both.interval is None
    assert alone.sentiment is not None
    assert alone.interval == (alone.sentiment - 0.5, alone.sentiment + 0.5)


def test_conflict_is_the_largest_distance(model: TamUlag) -> None:
    """Conflict compares the modalities that speak."""
    estimate = play(new(model), [*sound(0, 1), *faces(0, 1)])[-1]
    scores = [m.sentiment for m in estimate.modalities.values() if m.sentiment is not None]
    assert estimate.conflict == max(scores) - min(scores) > 0


def test_close_gives_words_that_came_after_the_sound_their_hop(model: TamUlag) -> None:
    """The last words of a file are scored."""
    estimates = play(new(model), [*sound(0, 1), phrase(1.3, "at last", final=True)])
    assert estimates[-1].end == 1.3
    assert estimates[-1].modalities["text"].status == "ok"


def test_phrase_from_the_far_future_does_not_hang_close(model: TamUlag) -> None:
    """A wrong timestamp costs nothing but the phrase, which is dropped and counted."""
    session = new(model)
    assert len(play(session, [*sound(0, 1), phrase(1e9, "never")])) == 2
    assert session.late_phrases == 1


def test_text_without_asking_is_refused(model: TamUlag) -> None:
    """The message names what was not asked for."""
    with pytest.raises(ValueError, match="text was not asked for"):
        new(model, ("audio",)).push(phrase(0.1, "hi"))


def test_two_sessions_share_one_model(model: TamUlag) -> None:
    """Interleaved sessions do not see each other."""
    one, two = new(model), new(model)
    estimates = []
    for a, b in zip(sound(0, 2), sound(3, 5), strict=True):
        estimates += one.push(a)
        two.push(Sample("audio", a.timestamp, b.values))
    assert estimates + one.close() == play(new(model), sound(0, 2))


def test_a_hop_can_double_and_come_back(model: TamUlag) -> None:
    """No tick is lost: the scores after it are those of hops of the usual length."""
    plain, paced = new(model, ("audio",)), new(model, ("audio",))
    usual: dict[float, Estimate] = {}
    found: list[Estimate] = []
    for item in sound(0.0, 4.0):
        usual |= {estimate.end: estimate for estimate in plain.push(item)}
        if item.timestamp in (1.0, 3.0):
            paced.set_hop(1.0 if item.timestamp == 1.0 else 0.5)
        found += paced.push(item)
    assert [estimate.end for estimate in found] == [0.5, 1.0, 2.0, 3.0, 3.5, 4.0]
    assert paced.hop == 0.5
    for estimate in found:
        assert estimate.sentiment == pytest.approx(usual[estimate.end].sentiment, abs=1e-6)


def test_phrases_beyond_the_bound_are_counted(model: TamUlag) -> None:
    """Without any sound no hop admits words; the oldest go, and not silently."""
    session = new(model)
    for number in range(WAITING_PHRASES + 3):
        session.push(phrase(1.0, "so", utterance=number))
    assert session.late_phrases == 3


def test_a_modality_that_is_not_fused_is_untrained_and_counts_for_nothing(model: TamUlag) -> None:
    """With words alone in the fused head, voice and face change no score, and alone give none."""
    model.config = dataclasses.replace(model.config, fused=("text",))
    heads = {"sentiment": True, "text": True, "audio": False, "vision": False}
    card = Card(trained=heads, interval={"text": 0.5})
    words = [phrase(1.2, "so good", final=True)]
    among = play(new(model, card=card), [*sound(0, 3), *faces(0, 3), *words])
    alone = play(new(model, ("text", "audio"), card), [*sound(0, 3), *words])
    assert [e.sentiment for e in among] == [e.sentiment for e in alone]
    assert among[0].sentiment is None
    assert among[3].sentiment is not None
    assert among[3].interval is not None
    assert among[3].modalities["text"].weight == 1.0
    voice = among[3].modalities["audio"]
    assert (voice.status, voice.sentiment, voice.weight) == ("untrained", None, 0.0)


class Notes:
    """An observer that collects the kinds of what it gets."""

    def __init__(self) -> None:
        self.kinds: list[str] = []

    def on_command(self, command: SessionCommand) -> None:
        is_phrase = isinstance(command, Push) and isinstance(command.item, Phrase)
        self.kinds.append("phrase" if is_phrase else type(command).__name__)

    def on_estimate(self, estimate: Estimate) -> None:
        self.kinds.append("estimate")


def test_an_observer_gets_everything_in_order(model: TamUlag) -> None:
    """An input before the estimates that it leads to, a call only if it closes hops."""
    session = new(model, ("text", "audio"))
    notes = session.observer = Notes()
    session.push(phrase(0.1, "so"))
    for item in sound(0, 0.5):
        session.push(item)
    assert notes.kinds == ["phrase", *["Push"] * 25, "estimate"]
    session.advance(0.6)
    assert notes.kinds[27:] == []
    session.advance(1.4)
    session.set_hop(1.0)
    session.close(1.5)
    assert notes.kinds[27:] == ["Advance", "estimate", "SetHop", "Close"]


def test_words_that_come_when_the_last_hop_has_closed_are_scored(model: TamUlag) -> None:
    """A recogniser gives its last words at the end of a file, which may be the end of a hop."""
    session = new(model, ("text", "audio"))
    before = [e for item in sound(0, 2) for e in session.push(item)]
    assert before[-1].end == 2.0
    session.push(phrase(2.0, "good", final=True, start=1.5))
    (last,) = session.close()
    assert last.end == 2.1
    assert last.modalities["text"].sentiment is not None
    assert session.late_phrases == 0


def test_words_need_not_be_named(model: TamUlag) -> None:
    """Then times and weights stay, and the scores are the same."""
    items: list[Input] = [*sound(0, 2), phrase(1.2, "so good", final=True)]
    named = play(new(model), items)[-1]
    silent = play(Session(TorchEngine(model), TRAINED, EVERY, TIMING, names_words=False), items)[-1]
    assert {row[0] for row in named.attention["text"]} == {"so", "good"}
    assert [row[1:] for row in silent.attention["text"]] == [
        row[1:] for row in named.attention["text"]
    ]
    assert {row[0] for row in silent.attention["text"]} == {""}
    assert silent.sentiment == named.sentiment
