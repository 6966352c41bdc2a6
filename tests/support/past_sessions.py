"""Messages of a session that never ran, as lines, for tests of the history."""

from tamulag.streamer.core.trend import label_of
from tamulag.streamer.protocol import messages
from tamulag.streamer.protocol.messages import Modality

EPOCH = 1_795_500_000.0
"""Wall time of the sessions' start: 2026-11-24, 06:00 UTC."""

OK = Modality(sentiment=0.5, weight=0.5, status="ok")
MISSING = Modality(sentiment=None, weight=0.0, status="missing", reason="no_face")


def hello(session: str = "k7", epoch: float = EPOCH) -> str:
    return messages.encode(
        messages.Hello(
            session=session,
            seq=0,
            time=messages.utc(epoch),
            version="9.9",
            checkpoint="tiny",
            heads={},
            modalities=["text"],
            sources=["script"],
            window=5.0,
            hop=0.5,
            lateness=0.3,
            epoch=messages.utc(epoch),
        )
    )


def score(
    seq: int,
    sentiment: float | None = 1.0,
    *,
    session: str = "k7",
    epoch: float = EPOCH,
    vision: Modality = OK,
    interval: tuple[float, float] | None = (-0.5, 2.5),
    word: str = "great",
) -> str:
    """Return the score of hop `seq`, whose end is at `seq` halves of a second."""
    end = seq / 2
    return messages.encode(
        messages.SentimentMessage(
            session=session,
            seq=seq,
            time=messages.utc(epoch + end),
            window=messages.Window(start=max(0.0, end - 5), end=end, warmup=end < 5),
            sentiment=sentiment,
            interval=interval if sentiment is not None else None,
            valence=None if sentiment is None else sentiment / 3,
            label=None if sentiment is None else label_of(sentiment),
            modalities=messages.Modalities(text=OK, audio=OK, vision=vision),
            conflict=None,
            attention=messages.Attention(text=[("so", end, 0.3), (word, end - 0.2, 0.5)]),
            latency=messages.Latency(align=0.3, features=0.1, model=0.001, total=0.31),
            dropped={"text": 0},
        )
    )


def end(seq: int, *, session: str = "k7", epoch: float = EPOCH) -> str:
    at = seq / 2
    return messages.encode(
        messages.Bound(
            type="session_end",
            at=at,
            reason="stopped",
            session=session,
            seq=seq,
            time=messages.utc(epoch + at),
        )
    )
