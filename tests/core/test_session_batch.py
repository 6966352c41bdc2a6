"""Many sessions in one place: each is scored as if it were alone, and each has its turn."""

import numpy as np
import pytest

from tamulag.models import TamUlag
from tamulag.models.runtime.checkpoint import Card
from tamulag.models.runtime.torch_engine import TorchEngine
from tamulag.streamer.core.commands import Advance, Close, Push, SetHop
from tamulag.streamer.core.estimate import Estimate
from tamulag.streamer.core.sample import Block, Input, Sample
from tamulag.streamer.core.session import Session
from tamulag.streamer.core.session_batch import BatchFull, SessionBatch

from ..core.test_session import TIMING, faces, phrase, sound

CARD = Card(trained=dict.fromkeys(("sentiment", "text", "audio", "vision"), True))
ASKED = ("text", "audio", "vision")


def small_batch(model: TamUlag, seats: int = 8, batch: int = 256) -> SessionBatch:
    return SessionBatch(TorchEngine(model, seats), CARD, TIMING, batch=batch)


def person(seed: int) -> list[Input]:
    """Return four seconds of a person: all three modalities, with a pause here and there."""
    rng = np.random.default_rng(seed)
    items: list[Input] = [s for s in sound(0, 4) if rng.random() < 0.9]
    items += [s for s in faces(0, 4) if rng.random() < 0.8]
    items += [
        phrase(1.0 + seed / 10, "so far"),
        phrase(1.7, "so good we hope", final=seed % 2 == 0),
    ]
    items += [phrase(2.9, "and then", utterance=1, start=2.0)]
    return sorted(items, key=lambda item: item.timestamp)


def alone(model: TamUlag, items: list[Input]) -> list[Estimate]:
    session = Session(TorchEngine(model), CARD, ASKED, TIMING)
    return [e for item in items for e in session.push(item)] + session.close()


def everything(place: SessionBatch) -> dict[str, list[Estimate]]:
    estimates: dict[str, list[Estimate]] = {name: [] for name in place.names}
    while place.waiting:
        for scored in place.step():
            estimates[scored.name].append(scored.estimate)
    return estimates


def assert_same(one: list[Estimate], other: list[Estimate]) -> None:
    assert [e.end for e in one] == [e.end for e in other]
    for a, b in zip(one, other, strict=True):
        assert a.sentiment == pytest.approx(b.sentiment, abs=1e-5)
        assert a.modalities.keys() == b.modalities.keys()
        for name, part in a.modalities.items():
            assert (part.status, part.reason, part.age) == (
                b.modalities[name].status,
                b.modalities[name].reason,
                b.modalities[name].age,
            )
            assert part.sentiment == pytest.approx(b.modalities[name].sentiment, abs=1e-5)
        assert (a.revision, a.warmup) == (b.revision, b.warmup)


@pytest.mark.parametrize("batch", [1, 3, 256])
def test_each_is_scored_as_if_alone(model: TamUlag, batch: int) -> None:
    """To 1e-5, whatever the others do and however many share a step."""
    people = {f"p{seed}": person(seed) for seed in range(7)}
    place = small_batch(model, batch=batch)
    estimates: dict[str, list[Estimate]] = {name: [] for name in people}
    for name in people:
        place.open(name, ASKED)
    rng, rest = np.random.default_rng(1), {name: list(items) for name, items in people.items()}
    while any(rest.values()):
        name = rng.choice([n for n, items in rest.items() if items])
        for _ in range(int(rng.integers(1, 60))):
            if rest[name]:
                place.apply(name, Push(rest[name].pop(0)))
        for scored in place.step():
            estimates[scored.name].append(scored.estimate)
    for name in people:
        place.apply(name, Close())
    for name, more in everything(place).items():
        assert_same(estimates[name] + more, alone(model, people[name]))


def test_rows_in_a_block_are_samples(model: TamUlag) -> None:
    """A sender's rows are scored as a device's samples."""
    voice = sound(0, 4)
    place = small_batch(model)
    place.open("x", ("audio",))
    for start in range(0, 200, 40):
        rows = np.stack([s.values for s in voice[start : start + 40] if s.values is not None])
        place.apply("x", Push(Block("audio", start / 50, rows)))
    session = Session(TorchEngine(model), CARD, ("audio",), TIMING)
    assert_same(everything(place)["x"], [e for s in voice for e in session.push(s)])


def test_nobody_has_two_turns_before_another_has_one(model: TamUlag) -> None:
    """Who sends ten seconds at once does not hold up the one who sends half a second."""
    place = small_batch(model, batch=2)
    for name in ("fast", "slow", "third"):
        place.open(name, ("audio",))
    place.apply("fast", Push(Block("audio", 0.0, np.ones((500, 4), np.float32))))
    place.apply("slow", Push(Block("audio", 0.0, np.ones((25, 4), np.float32))))
    place.apply("third", Push(Block("audio", 0.0, np.ones((25, 4), np.float32))))
    assert place.backlog("fast") == 20
    order = [name for _ in range(3) for name, *_ in place.step()]
    assert order[:4] == ["fast", "slow", "third", "fast"]


def test_a_full_hall_says_so(model: TamUlag) -> None:
    """And has room again when a session ends."""
    place = small_batch(model, seats=1)
    place.open("a", ("audio",))
    with pytest.raises(BatchFull, match="all 1 seats"):
        place.open("b", ("audio",))
    place.remove("a")
    place.open("b", ("audio",))
    assert place.free == 0


def test_a_name_is_taken_once(model: TamUlag) -> None:
    """Two of one name would share a state."""
    place = small_batch(model)
    place.open("a", ("audio",))
    with pytest.raises(ValueError, match="a is here already"):
        place.open("a", ("audio",))


def test_who_leaves_is_forgotten(model: TamUlag) -> None:
    """Turns that wait are not taken any more."""
    place = small_batch(model)
    place.open("a", ("audio",))
    place.apply("a", Push(Block("audio", 0.0, np.ones((25, 4), np.float32))))
    place.remove("a")
    assert place.step() == []
    assert place.waiting == 0


def test_time_closes_a_hop_without_samples(model: TamUlag) -> None:
    """Silence of all does not stop a session."""
    place = small_batch(model)
    place.open("a", ("audio",))
    place.apply("a", Push(Sample("audio", 0.0, np.ones(4, np.float32))))
    place.apply("a", Advance(1.35))
    assert [e.end for e in everything(place)["a"]] == [0.5, 1.0]


def test_a_slot_is_used_again_after_the_rings_have_grown(model: TamUlag) -> None:
    """By a hop that is longer than any before."""
    place = small_batch(model, seats=1)
    place.open("a", ("audio",))
    place.apply("a", SetHop(2.0))
    place.apply("a", Push(Block("audio", 0.0, np.ones((200, 4), np.float32))))
    assert everything(place)["a"]
    place.remove("a")
    place.open("b", ("audio",))
    items: list[Input] = list(sound(0, 4))
    for item in items:
        place.apply("b", Push(item))
    session = Session(TorchEngine(model), CARD, ("audio",), TIMING)
    assert_same(everything(place)["b"], [e for item in items for e in session.push(item)])
