from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamulag.streamer.core.sample import Word
from tamulag.streamer.features.asr.transcript import (
    MAX_WORDS,
    Committed,
    Hypothesis,
    Transcript,
    spread,
)


def words(text: str, start: float = 0.0) -> tuple[Word, ...]:
    return spread(text, start, 0.3 * len(text.split()))


def partial(text: str, utterance: int = 0, start: float = 0.0) -> Hypothesis:
    return Hypothesis(utterance, words(text, start), final=False)


def final(text: str, utterance: int = 0, start: float = 0.0) -> Hypothesis:
    return Hypothesis(utterance, words(text, start), final=True)


def texts(committed: Committed) -> list[str]:
    return [word.text for word in committed.words]


def run(*hypotheses: Hypothesis) -> list[Committed]:
    transcript = Transcript()
    return [entry for hypothesis in hypotheses for entry in transcript.update(hypothesis)]


def test_first_partial_is_only_a_tail() -> None:
    """One hypothesis alone commits nothing; its words are shown as the tail."""
    assert run(partial("it was")) == [Committed(0, (), "it was", final=False, revised=False)]


def test_agreed_prefix_is_committed() -> None:
    """The prefix two successive partials agree on stands; the rest is the tail."""
    last = run(partial("it was a pound"), partial("it was the best"))[-1]
    assert texts(last) == ["it", "was"]
    assert last.tail == "the best"
    assert not last.revised


def test_case_and_punctuation_do_not_matter() -> None:
    """`Times,` and `times` are the same word."""
    last = run(partial("Best of times, it"), partial("best of Times it's"))[-1]
    assert texts(last) == ["best", "of", "Times"]


def test_vowel_signs_do_matter() -> None:
    """Marks that make a word are compared: Hindi 'ki' with a short and a long vowel differ."""
    assert run(partial("कि"), partial("की"))[-1].words == ()


def test_final_commits_everything() -> None:
    """A final stands as it is, though no partial agreed with it."""
    last = run(partial("it was a"), final("it was the best"))[-1]
    assert texts(last) == ["it", "was", "the", "best"]
    assert last.final
    assert last.tail == ""


def test_nothing_changed_gives_nothing() -> None:
    """A partial that repeats what is already committed is silent."""
    transcript = Transcript()
    transcript.update(partial("so far"))
    transcript.update(partial("so far"))
    assert transcript.update(partial("so far", start=0.1)) == []


def test_empty_utterance_gives_nothing() -> None:
    """Silence that the recogniser calls an utterance takes no number."""
    assert run(final(""), partial("", 1), final("", 1), final("good", 2))[-1].utterance == 0


def test_one_contradiction_changes_nothing_committed() -> None:
    """A single partial that contradicts the committed words does not take them back."""
    entries = run(partial("the spring"), partial("the spring"), partial("the swing of"))
    assert texts(entries[-1]) == ["the", "spring"]
    assert not entries[-1].revised


def test_two_contradictions_revise() -> None:
    """When a second partial confirms the contradiction, the new words replace the old."""
    swing = partial("the swing of")
    last = run(partial("the spring"), partial("the spring"), swing, swing)[-1]
    assert texts(last) == ["the", "swing", "of"]
    assert last.revised


def test_final_that_contradicts_revises() -> None:
    """A final overrules committed words and says so."""
    last = run(partial("the spring"), partial("the spring"), final("the swing"))[-1]
    assert texts(last) == ["the", "swing"]
    assert last.revised


def test_empty_final_takes_back_what_was_committed() -> None:
    """When nothing of a committed utterance is left, an empty final says so."""
    last = run(partial("noise"), partial("noise"), final(""))[-1]
    assert last == Committed(0, (), "", final=True, revised=True)


def test_times_are_those_of_the_newest_hypothesis() -> None:
    """Committed words carry the times of the hypothesis that brought the change."""
    last = run(partial("it was"), partial("it was", start=1.0), final("it was", start=2.0))[-1]
    assert last.words == words("it was", start=2.0)


def test_next_utterance_closes_the_one_before() -> None:
    """An utterance that got no final is closed with its latest words when another begins."""
    entries = run(partial("so it", 7), partial("now", 8))
    assert entries[-2] == Committed(0, words("so it"), "", final=True, revised=False)
    assert entries[-1].utterance == 1


def test_long_utterance_is_split() -> None:
    """At forty committed words the first part is final and the rest has the next number."""
    text = " ".join(f"w{n}" for n in range(MAX_WORDS + 2))
    first, rest = run(partial(text), partial(text))[-2:]
    assert (first.utterance, len(first.words), first.final) == (0, MAX_WORDS, True)
    assert (rest.utterance, texts(rest), rest.final) == (1, ["w40", "w41"], False)


def test_split_utterance_goes_on_growing() -> None:
    """After a split only the part after it is told again."""
    text = " ".join(f"w{n}" for n in range(MAX_WORDS + 2))
    entries = run(partial(text), partial(text), final(text + " end"))
    assert texts(entries[-1]) == ["w40", "w41", "end"]
    assert entries[-1].utterance == 1


@given(
    text=st.lists(st.sampled_from(["a", "no", "good"]), min_size=1, max_size=130),
    cuts=st.lists(st.integers(1, 130), max_size=8),
)
def test_splitting_loses_no_word(text: list[str], cuts: list[int]) -> None:
    """However a steadily growing utterance arrives, its parts together are the whole text."""
    grown = [partial(" ".join(text[:cut])) for cut in sorted(cuts)]
    entries = run(*grown, final(" ".join(text)))
    parts = {entry.utterance: texts(entry) for entry in entries}
    assert [word for number in sorted(parts) for word in parts[number]] == text
    assert max(len(part) for part in parts.values()) <= MAX_WORDS


hypotheses = st.lists(
    st.builds(
        lambda step, text, final: (step, " ".join(text), final),
        st.integers(0, 1),
        st.lists(st.sampled_from(["a", "A,", "b", "c"]), max_size=6),
        st.booleans(),
    ),
    max_size=30,
)


def told(plan: list[tuple[int, str, bool]]) -> list[tuple[Hypothesis, list[Committed]]]:
    transcript, utterance, out = Transcript(), 0, []
    for step, text, is_final in plan:
        utterance += step
        hypothesis = Hypothesis(utterance, words(text), is_final)
        out.append((hypothesis, transcript.update(hypothesis)))
        utterance += is_final
    return out


@given(hypotheses)
def test_words_never_change_unreported(plan: list[tuple[int, str, bool]]) -> None:
    """A committed word is changed or taken back only by an entry that says `revised`."""
    known: dict[int, list[str]] = {}
    for _, entries in told(plan):
        for entry in entries:
            now = [text.lower().strip(",") for text in texts(entry)]
            before = known.get(entry.utterance, [])
            assert entry.revised == (now[: len(before)] != before)
            known[entry.utterance] = now


@given(hypotheses)
def test_finals_are_always_committed(plan: list[tuple[int, str, bool]]) -> None:
    """The words of a final are out, all of them, with its update."""
    for hypothesis, entries in told(plan):
        if hypothesis.final and hypothesis.words:
            assert entries[-1].words == hypothesis.words
            assert entries[-1].final


@given(hypotheses)
def test_numbers_rise_and_a_final_is_the_last(plan: list[tuple[int, str, bool]]) -> None:
    """Numbers never fall, and rise by one exactly after a final entry."""
    number = 0
    for entry in (entry for _, entries in told(plan) for entry in entries):
        assert entry.utterance == number
        number += entry.final


@given(hypotheses)
def test_every_entry_brings_something_new(plan: list[tuple[int, str, bool]]) -> None:
    """No entry repeats the one before it."""
    before = None
    for entry in (entry for _, entries in told(plan) for entry in entries):
        assert entry != before
        before = entry


@given(
    text=st.lists(st.text("abc'", min_size=1, max_size=9), min_size=1, max_size=20),
    start=st.floats(0, 1e4),
    duration=st.floats(0.1, 30),
)
def test_spread_fills_the_line(text: list[str], start: float, duration: float) -> None:
    """Spread words keep their order, touch each other and fill the line from end to end."""
    line = spread(" ".join(text), start, duration)
    assert [word.text for word in line] == text
    assert line[0].start == start
    assert line[-1].end == pytest.approx(start + duration)
    assert all(a.end == b.start for a, b in pairwise(line))
    assert all(word.start < word.end for word in line)


def test_spread_gives_longer_words_more_time() -> None:
    """Time goes by characters plus one: `a` gets 2 of 12 parts, `wonderful` 10."""
    assert [word.start for word in spread("a wonderful", 3.0, 1.2)] == pytest.approx([3.0, 3.2])


def test_spread_of_nothing_is_nothing() -> None:
    """A line without text has no words."""
    assert spread(" ", 1.0, 2.0) == ()
