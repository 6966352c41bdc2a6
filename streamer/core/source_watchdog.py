"""Find a source that went silent without an error, by the age of its newest sample.

Knows modalities and times. Knows no source and no clock.
"""

from collections.abc import Collection, Mapping

from .sample import Modality, Notice

LIMIT = 3.0
"""Seconds without any sample, valid or not, after which a modality is lost. The sources' own
limits are shorter; this finds what they cannot: an extractor or a file that hangs."""

FIRST_LIMIT = 10.0
"""The same for the first sample."""

REASON = "source_lost"


class SourceWatchdog:
    """Report once that a modality is silent, and once that it is back.

    Args:
        modalities: Those that give samples without pause; text does not.
    """

    def __init__(self, modalities: Collection[Modality]) -> None:
        self._due = dict.fromkeys(modalities, FIRST_LIMIT)
        self._silent: set[Modality] = set()

    def saw(self, modality: Modality, now: float) -> None:
        """Record a sample at `now`, session time."""
        self._due[modality] = now + LIMIT

    def poll(self, now: float, lost: Mapping[str, str]) -> list[Notice]:
        """Return notices of the modalities that became silent or came back.

        Args:
            now: Session time.
            lost: Modalities that are reported as lost, with the reason; those reported by
                their source are ignored.
        """
        notices = []
        for modality, due in self._due.items():
            known = lost.get(modality)
            if known not in (None, REASON):
                self._silent.discard(modality)
                self._due[modality] = max(due, now + LIMIT)
            elif known is None and now > due:
                self._silent.add(modality)
                notices.append(Notice(now, modality, REASON, f"no {modality} for {LIMIT:g} s"))
            elif modality in self._silent and now <= due:
                self._silent.discard(modality)
                notices.append(Notice(now, modality, None, f"{modality} comes again"))
        return notices
