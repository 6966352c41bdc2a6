"""Decide which recognised words are stable: hypotheses in, committed words out.

Knows words, their times and utterances. Knows no recogniser, no sound and no model.
"""

import unicodedata
from dataclasses import dataclass

from ...core.sample import Word

MAX_WORDS = 40
"""Committed words of one utterance; a longer one is split, so that its tokens stay few."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A recogniser's current words of one utterance; a later hypothesis replaces it."""

    utterance: int
    """The recogniser's own number; utterances follow one another, never interleaved."""
    words: tuple[Word, ...]
    """All words of the utterance so far, in session time."""
    final: bool
    """True: no further hypothesis of this utterance follows."""


@dataclass(frozen=True, slots=True)
class Committed:
    """The stable words of one utterance; a later one replaces it."""

    utterance: int
    """Rising number, counted by the transcript, not the recogniser's."""
    words: tuple[Word, ...]
    tail: str
    """Words that may still change, for display only."""
    final: bool
    """True: no further entry with this number follows."""
    revised: bool
    """True: a word committed earlier under this number was changed or withdrawn."""


@dataclass(slots=True)
class _Utterance:
    source: int
    number: int
    split: int = 0
    latest: tuple[Word, ...] = ()
    committed: tuple[Word, ...] = ()
    tail: str = ""


class Transcript:
    """Commits finals and the stable prefix of partials.

    A partial's prefix is stable when two successive hypotheses agree on it (LocalAgreement-2, Liu
    et al. 2020); it is withdrawn when two successive hypotheses or a final contradict it. Words are
    compared without case and punctuation.

    Text and times of committed words are those of the newest hypothesis that contains them: times
    from different hypotheses would overlap, and a recogniser's times improve with more sound. They
    are published only together with a change of the words, so they do not jitter.
    """

    def __init__(self) -> None:
        self._next = 0
        self._open: _Utterance | None = None

    def update(self, hypothesis: Hypothesis) -> list[Committed]:
        """Apply the newest hypothesis and return what changed, oldest first.

        A hypothesis of another utterance closes the one before it with its latest words. An
        utterance of more than `MAX_WORDS` committed words is closed at that many and continues
        under the next number; the closed part is not revised any more.

        Returns:
            One entry per utterance whose words, tail or finality changed; [] if nothing did.
        """
        out: list[Committed] = []
        if self._open is not None and self._open.source != hypothesis.utterance:
            out += self._advance(self._open, self._open.latest, final=True)
        if self._open is None:
            if not hypothesis.words:
                return out
            self._open = _Utterance(hypothesis.utterance, self._number())
        return out + self._advance(self._open, hypothesis.words, final=hypothesis.final)

    def _advance(
        self, utterance: _Utterance, words: tuple[Word, ...], *, final: bool
    ) -> list[Committed]:
        before = utterance.committed
        rest, previous = words[utterance.split :], utterance.latest[utterance.split :]
        stable = rest if final else _stable(before, previous, rest)
        tail = " ".join(word.text for word in rest[len(stable) :])
        revised = _agreement(before, stable) < len(before)
        changed = final or revised or len(stable) > len(before) or tail != utterance.tail
        utterance.latest, utterance.committed, utterance.tail = words, stable, tail
        if final:
            self._open = None
        return self._entries(utterance, final=final, revised=revised) if changed else []

    def _entries(self, utterance: _Utterance, *, final: bool, revised: bool) -> list[Committed]:
        out: list[Committed] = []
        while len(utterance.committed) > MAX_WORDS:
            part = utterance.committed[:MAX_WORDS]
            out.append(Committed(utterance.number, part, "", final=True, revised=revised))
            utterance.number = self._number()
            utterance.split += MAX_WORDS
            utterance.committed = utterance.committed[MAX_WORDS:]
            revised = False
        out.append(Committed(utterance.number, utterance.committed, utterance.tail, final, revised))
        return out

    def _number(self) -> int:
        self._next += 1
        return self._next - 1


def spread(text: str, start: float, duration: float) -> tuple[Word, ...]:
    """Interpolate word times for a recogniser that gives none.

    Args:
        text: Words separated by white space.
        start: Session time of the text's beginning.
        duration: Seconds from there to its end.

    Returns:
        Words that fill [start, start + duration] without a gap, each in proportion to its
        characters plus one.
    """
    texts = text.split()
    total = sum(len(word) + 1 for word in texts)
    words, done = [], 0
    for word in texts:
        begin = start + duration * done / total
        done += len(word) + 1
        words.append(Word(word, begin, start + duration * done / total))
    return tuple(words)


def _stable(
    committed: tuple[Word, ...], previous: tuple[Word, ...], latest: tuple[Word, ...]
) -> tuple[Word, ...]:
    if _agreement(committed, latest) == len(committed):
        return latest[: max(len(committed), _agreement(previous, latest))]
    if _agreement(committed, previous) == len(committed):
        return committed
    return latest[: _agreement(previous, latest)]


def _agreement(one: tuple[Word, ...], other: tuple[Word, ...]) -> int:
    """Return how many words the two have in common from the first."""
    for count, (a, b) in enumerate(zip(one, other, strict=False)):
        if _key(a.text) != _key(b.text):
            return count
    return min(len(one), len(other))


def _key(text: str) -> str:
    return "".join(c for c in text.casefold() if not unicodedata.category(c).startswith("P"))
