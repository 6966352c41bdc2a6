"""Clips of written texts of which only the first words have been heard."""

from collections.abc import Sequence

from ..text.text_encoder import TextEncoder
from .clips import Array, Clip, TextRow, text_clips

BATCH = 32


def spoken(encoder: TextEncoder, rows: Sequence[TextRow], counts: Sequence[int]) -> list[Clip]:
    """Return the clips of written texts of which only the first words have been heard.

    Args:
        encoder: Of the checkpoint. A sentence that is cut is encoded without the rest of it.
        rows: As `read_labelled` returns them.
        counts: Words of each that have been heard; what is beyond its last word is ignored.
    """
    begun = [" ".join(encoder.split(row.text)[:n]) for row, n in zip(rows, counts, strict=True)]
    states: list[Array] = []
    for first in range(0, len(begun), BATCH):
        states += encoder.encode_batch(begun[first : first + BATCH])
    return text_clips(rows, states)
