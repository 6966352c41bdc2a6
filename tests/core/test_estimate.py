"""Estimates of one hop: status, score and age of each modality."""

from collections.abc import Mapping

import numpy as np
import pytest

from tamulag.models import MODALITIES
from tamulag.models.runtime.checkpoint import Card
from tamulag.models.runtime.step_engine import Attention, StepArrays
from tamulag.streamer.core.estimate import (
    APART,
    Estimate,
    ModalityEstimate,
    Presence,
    Timing,
    describe,
    difference,
    step_outputs,
)

NAN = float("nan")
TRAINED = Card(trained=dict.fromkeys(("sentiment", *MODALITIES), True))
END = 400


def pooled(weights: Mapping[int, float] | list[tuple[int, float]]) -> Attention:
    rows = list(weights.items()) if isinstance(weights, Mapping) else weights
    time = np.array([[tick for tick, _ in rows]], np.int64)
    return Attention(np.array([[share for _, share in rows]], np.float32), time)


def output(
    sentiment: float = 0.5,
    heads: tuple[float, float, float] = (1.0, -0.5, 0.25),
    present: tuple[bool, bool, bool] = (True, True, True),
    attention: tuple[Attention, Attention, Attention] | None = None,
    scale: tuple[float, float, float] | None = None,
) -> StepArrays:
    return StepArrays(
        np.array([sentiment], np.float32),
        np.array([heads], np.float32),
        np.array([present]),
        np.array([[0.5, 0.25, 0.25]], np.float32),
        None if scale is None else np.array([scale], np.float32),
        attention or (pooled({380: 1.0}), pooled({390: 1.0}), pooled({395: 1.0})),
    )


def here(last: int = END, reason: str | None = None, lost: str | None = None) -> Presence:
    report = Presence(last=last, reason=reason, lost=lost)
    report.grow(END, 2.0)
    return report


def estimated(
    out: StepArrays | None = None,
    *,
    card: Card = TRAINED,
    end: int = END,
    words: Mapping[int, str] | None = None,
    **reports: Presence | None,
) -> Estimate:
    """Describe a hop in which all are there, but for the reports given; None: not asked for."""
    known = {name: here() for name in MODALITIES} | reports
    return describe(
        step_outputs(out or output())[0],
        end,
        timing=Timing(),
        presence={name: report for name, report in known.items() if report is not None},
        card=card,
        words=words or {},
        revision=3,
    )


def test_present_modality_gives_its_number_weight_and_age() -> None:
    """What is there is ok and needs no reason."""
    found = estimated(text=here(last=END - 16))
    assert found.modalities["text"] == ModalityEstimate(1.0, 0.5, "ok", None, 0.32)
    assert found.sentiment == 0.5
    assert found.revision == 3


@pytest.mark.parametrize(
    ("end", "start", "warmup"), [(400, 3.0, False), (250, 0.0, False), (225, 0.0, True)]
)
def test_window_grows_until_it_is_whole(end: int, start: float, warmup: bool) -> None:
    """The first windows begin at 0 and are marked as warmup."""
    found = estimated(end=end)
    assert (found.start, found.end, found.warmup) == (start, end / 50, warmup)


def test_old_content_is_stale_with_its_reason() -> None:
    """A face that left half a second ago still counts and has the reason of its age."""
    found = estimated(vision=here(last=END - 25, reason="no_face")).modalities["vision"]
    assert found == ModalityEstimate(0.25, 0.25, "stale", "no_face", 0.5)


def test_content_at_the_limit_is_not_stale() -> None:
    """Stale is older than the limit, not as old: 0.5 s for the voice."""
    assert estimated(audio=here(last=END - 25)).modalities["audio"].status == "ok"
    assert estimated(audio=here(last=END - 26)).modalities["audio"].status == "stale"


def test_too_old_content_is_missing() -> None:
    """Beyond its limit a modality has no number, though its age is known."""
    found = estimated(audio=here(last=END - 101, reason="silence")).modalities["audio"]
    assert found == ModalityEstimate(None, 0.0, "missing", "silence", 2.02)


def test_lost_source_outweighs_what_it_saw_last() -> None:
    """A pulled camera is the reason, not the empty picture before."""
    found = estimated(vision=here(reason="no_face", lost="camera_lost")).modalities["vision"]
    assert (found.status, found.reason, found.sentiment) == ("missing", "camera_lost", None)


def test_modality_that_never_came_says_so() -> None:
    """Without a reason from its source it has its own default reason."""
    found = estimated(text=Presence(), audio=Presence(), vision=Presence())
    assert found.modalities == {
        "text": ModalityEstimate(None, 0.0, "missing", "no_words"),
        "audio": ModalityEstimate(None, 0.0, "missing", "no_sound"),
        "vision": ModalityEstimate(None, 0.0, "missing", "no_picture"),
    }


def test_model_decides_who_is_present() -> None:
    """A modality with nothing in the window is missing, whatever its age."""
    found = estimated(output(present=(True, True, False)))
    assert found.modalities["vision"].status == "missing"
    assert "vision" not in found.attention


def test_modality_that_was_not_asked_for_is_off() -> None:
    """Off has no number, no reason and no age."""
    assert estimated(text=None).modalities["text"] == ModalityEstimate(None, 0.0, "off")


def test_untrained_head_has_a_weight_but_no_number() -> None:
    """It takes part in the fusion and has no score of its own."""
    card = Card(trained=TRAINED.trained | {"audio": False})
    found = estimated(card=card, audio=here(last=END - 60)).modalities["audio"]
    assert found == ModalityEstimate(None, 0.25, "untrained", "head_untrained", 1.2)


def test_untrained_fusion_gives_no_number_and_no_interval() -> None:
    """The unimodal heads still speak."""
    card = Card(trained=TRAINED.trained | {"sentiment": False}, interval={"text+audio+vision": 1.0})
    found = estimated(card=card)
    assert (found.sentiment, found.interval) == (None, None)
    assert found.modalities["text"].sentiment == 1.0


def test_nobody_there_gives_no_number() -> None:
    """The bias of the fused head is not a sentiment."""
    found = estimated(text=Presence(), audio=Presence(), vision=Presence())
    assert (found.sentiment, found.conflict, found.attention) == (None, None, {})


def test_interval_belongs_to_the_present_modalities() -> None:
    """The half width is looked up by who is there; a set without one has no interval."""
    card = Card(trained=TRAINED.trained, interval={"text+audio": 1.0})
    assert estimated(card=card, vision=None).interval == (-0.5, 1.5)
    assert estimated(card=card).interval is None


def test_interval_narrows_as_more_is_heard() -> None:
    """The number of attended steps chooses the half width; steps without weight do not count."""
    card = Card(
        trained=TRAINED.trained,
        interval={"text": 1.0},
        begun={"text": [2.0]},
        heard={"text": [3]},
    )
    for tokens, interval in ((2, (-1.5, 2.5)), (3, (-0.5, 1.5))):
        shares = [(380 + n, 1 / tokens) for n in range(tokens)] + [(300, 0.0)] * 5
        rest = pooled({390: 1.0}), pooled({395: 1.0})
        out = output(attention=(pooled(shares), *rest))
        assert estimated(out, card=card, audio=None, vision=None).interval == interval


def test_interval_ends_at_the_scale() -> None:
    """No one can be more positive than 3."""
    card = Card(trained=TRAINED.trained, interval={"text+audio+vision": 1.0})
    assert estimated(output(sentiment=2.5), card=card).interval == (1.5, 3.0)
    assert estimated(output(sentiment=-2.5), card=card).interval == (-3.0, -1.5)


def test_conflict_needs_two_that_speak() -> None:
    """It is the largest distance; an untrained head is not compared."""
    assert estimated().conflict == 1.5
    assert estimated(audio=None).conflict == 0.75
    assert estimated(audio=None, vision=None).conflict is None
    assert estimated(card=Card(trained=TRAINED.trained | {"audio": False})).conflict == 0.75


def test_heaviest_ticks_are_named_first() -> None:
    """Five at most, with their times; ticks without a weight are left out."""
    shares = {300: 0.1, 310: 0.0, 320: 0.3, 330: 0.05, 340: 0.25, 350: 0.2, 360: 0.1}
    found = estimated(output(attention=(pooled({}), pooled(shares), pooled({300: 0.0}))))
    times = [time for time, _ in found.attention["audio"]]  # type: ignore[misc]
    assert times == [6.4, 6.8, 7.0, 6.0, 7.2]
    assert found.attention["vision"] == []


def test_tokens_of_a_word_are_added_up() -> None:
    """Several tokens stand at the time of one word."""
    text = pooled([(300, 0.25), (300, 0.25), (320, 0.5), (310, 0.0)])
    found = estimated(
        output(attention=(text, pooled({}), pooled({}))), words={300: "unbelievable", 320: "good"}
    )
    assert found.attention["text"] == [("unbelievable", 6.0, 0.5), ("good", 6.4, 0.5)]


def test_report_that_never_heard_anything_is_missing() -> None:
    """No content has no age."""
    report = Presence()
    report.grow(END, 2.0)
    assert (report.age, report.missing, report.counts) == (None, True, False)


def test_report_counts_while_it_is_young_and_not_lost() -> None:
    """Age counts from the end of the newest content; the limit itself is not missing."""
    report = Presence(last=300)
    report.grow(400, 2.0)
    assert (report.age, report.counts) == (2.0, True)
    report.lost = "microphone_lost"
    assert not report.counts
    report.lost = None
    report.grow(401, 2.0)
    assert not report.counts


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (1.0, 1.5, 0.5),
        (None, None, 0.0),
        (None, 1.0, APART),
        (NAN, NAN, 0.0),
        (NAN, 1.0, APART),
        ("ok", "stale", APART),
        ({"a": [1.0, 2.0]}, {"a": [1.0, 2.25]}, 0.25),
        ({"a": 1.0}, {"b": 1.0}, APART),
        ([1.0], [1.0, 1.0], APART),
    ],
)
def test_the_largest_difference_counts(one: object, other: object, expected: float) -> None:
    """What only one side has is as far apart as can be."""
    assert difference(one, other) == expected


def test_a_scale_comes_with_each_score() -> None:
    """Where there is no score there is none, and none of a model that has no scales."""
    card = Card(trained=TRAINED.trained | {"vision": False})
    found = estimated(output(scale=(0.5, 0.25, 1.0)), card=card, audio=Presence()).modalities
    assert [found[name].scale for name in MODALITIES] == [0.5, None, None]
    assert [one.scale for one in estimated().modalities.values()] == [None] * 3


def test_with_scales_the_interval_is_that_of_their_quantiles() -> None:
    """Weights 0.5, 0.25 and 0.25 of scales 0.5, 1 and 0.5, by quantiles of 2, 1 and 2."""
    card = Card(trained=TRAINED.trained, quantile={"text": 2.0, "audio": 1.0, "vision": 2.0})
    found = estimated(output(scale=(0.5, 1.0, 0.5)), card=card)
    assert found.interval == (-0.5, 1.5)
    wider = estimated(output(scale=(1.0, 1.0, 0.5)), card=card)
    assert wider.interval == (-1.0, 2.0)
    part = Card(trained=TRAINED.trained, quantile={"text": 2.0})
    assert estimated(output(scale=(0.5, 1.0, 0.5)), card=part).interval is None
