"""Add up what was lost, and gather what can be measured, over sources, inbox and session.

Knows the parts and the names of their figures. Measures nothing itself.
"""

from collections.abc import Mapping, Sequence

from ..core.sample import MODALITIES
from ..core.session import Session
from ..core.source import Source
from .inbox import Inbox

MAY_WAIT: Mapping[str, float] = {
    "inbox_waited": 0.5,
    "microphone_waiting": 0.5,
    "source_behind": 0.3,  # where a file begins to leave out pictures
    "ingest_audio_age": 0.5,
    "ingest_vision_age": 0.5,
    "asr_waiting": 2.0,
}
"""Seconds that something may wait before the machine counts as too slow, by the gauge's name."""


def dropped(inbox: Inbox, session: Session, sources: Sequence[Source]) -> dict[str, int]:
    """Add up what was lost in the sources, in the inbox and by coming too late, by modality."""
    late = session.aligner.late | {"text": session.late_phrases}
    parts = [inbox.dropped, late, *(source.losses() for source in sources)]
    return {name: sum(part.get(name, 0) for part in parts) for name in (*MODALITIES, "asr")}


def gauges(inbox: Inbox, session: Session, sources: Sequence[Source]) -> dict[str, float]:
    """Return every figure of the parts by its plain name; seconds and counts."""
    figures: dict[str, float] = {"hop": session.hop, "inbox_waited": inbox.waited}
    figures |= {f"inbox_dropped_{kind}": count for kind, count in inbox.dropped.items()}
    figures |= {f"inbox_waiting_{kind}": count for kind, count in inbox.waiting().items()}
    figures |= {f"late_{name}": count for name, count in session.aligner.late.items()}
    figures["late_text"] = session.late_phrases
    for source in sources:
        figures |= source.gauges()
    return figures


def strain(inbox: Inbox, sources: Sequence[Source], *, working: float) -> float:
    """Return the longest wait as a share of what may be; above 1 the machine is too slow.

    Args:
        inbox: Where inputs waited.
        sources: Where sound, pictures and frames wait.
        working: Seconds since inputs were taken out, of which some still wait.
    """
    waits = {"inbox_waited": max(inbox.waited, working)}
    for source in sources:
        waits |= source.gauges()
    return max(waits[name] / most for name, most in MAY_WAIT.items() if name in waits)
