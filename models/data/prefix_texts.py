"""Clips of written texts of which only the first words are there yet."""

from collections.abc import Sequence

from ..text.text_encoder import TextEncoder
from .clips import Array, Clip, TextRow
from .text_csv import text_clips

BATCH = 32


def encode_prefixes(
    encoder: TextEncoder, rows: Sequence[TextRow], counts: Sequence[int]
) -> list[Clip]:
    """Return the clips of written texts, each of its first words alone.

    Args:
        encoder: Of the checkpoint. A prefix is encoded without the rest of its sentence.
        rows: As `read_labelled` returns them.
        counts: Words of each; what is beyond its last word is ignored.
    """
    texts = [" ".join(encoder.split(row.text)[:n]) for row, n in zip(rows, counts, strict=True)]
    states: list[Array] = []
    for first in range(0, len(texts), BATCH):
        states += encoder.encode_batch(texts[first : first + BATCH])
    return text_clips(rows, states)
