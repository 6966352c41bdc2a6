"""Scores as EmotionML 1.0, the W3C's language for emotions.

Knows that language and the messages. Knows no file. The recommendation and its schema are at
https://www.w3.org/TR/emotionml/ (emotionml.xsd, emotionml-fragments.xsd), the vocabularies at
https://www.w3.org/TR/emotion-voc/.
"""

from collections.abc import Iterable, Iterator, Sequence
from xml.sax.saxutils import escape, quoteattr

from ..core.sample import LIMIT, MODALITIES
from .messages import SentimentMessage

NAMESPACE = "http://www.w3.org/2009/10/emotionml"

DIMENSIONS = "http://www.w3.org/TR/emotion-voc/xml#pad-dimensions"
"""Pleasure, arousal and dominance; a sentiment is the first alone."""

CHANNELS = {"text": "text", "audio": "voice", "vision": "face"}
"""Values of `expressed-through` for our modalities."""

PRESENT = ("ok", "stale")


def document(scores: Iterable[SentimentMessage], epoch: float, about: str) -> Iterator[str]:
    """Yield the lines of a document: an emotion for each fused score and each modality's own.

    Scores that are null are left out. Sentiment -3 to 3 becomes `pleasure` 0 to 1; times are
    milliseconds since 1970; `confidence`, of fused scores alone, is 1 less the share of the scale
    that the 90 % interval covers.

    Args:
        scores: Of one session.
        epoch: Wall time of session time 0, seconds since 1970.
        about: Description for people.
    """
    yield '<?xml version="1.0" encoding="UTF-8"?>\n'
    yield f'<emotionml version="1.0" xmlns="{NAMESPACE}" dimension-set="{DIMENSIONS}">\n'
    yield f"<info>{escape(about)}</info>\n"
    for score in scores:
        yield from _emotions(score, epoch)
    yield "</emotionml>\n"


def _emotions(score: SentimentMessage, epoch: float) -> Iterator[str]:
    times = tuple(round(1000 * (epoch + at)) for at in (score.window.start, score.window.end))
    parts = {name: getattr(score.modalities, name) for name in MODALITIES}
    present = [name for name in MODALITIES if parts[name].status in PRESENT]
    if score.sentiment is not None:
        sure = None if score.interval is None else _confidence(*score.interval)
        yield _emotion(score.sentiment, times, present, sure)
    for name in present:
        if parts[name].sentiment is not None:
            yield _emotion(parts[name].sentiment, times, [name], None)


def _emotion(
    sentiment: float, times: tuple[int, ...], names: Sequence[str], confidence: float | None
) -> str:
    channels = quoteattr(" ".join(CHANNELS[name] for name in names))
    through = f" expressed-through={channels}" if names else ""
    sure = "" if confidence is None else f' confidence="{confidence:.4f}"'
    value = (sentiment + LIMIT) / (2 * LIMIT)
    return (
        f'<emotion start="{times[0]}" end="{times[1]}"{through}>'
        f'<dimension name="pleasure" value="{value:.4f}"{sure}/></emotion>\n'
    )


def _confidence(low: float, high: float) -> float:
    return 1 - (high - low) / (2 * LIMIT)
