"""Numbers that every part agrees on; each is defined here and nowhere else.

Knows numbers and names. Knows no tensor, so that what has no model can read them too.
"""

from collections.abc import Mapping

MODALITIES = ("text", "audio", "vision")
"""In this order wherever they are positions in an array."""

TICK_RATE = 50
"""Ticks per second: one tick is one audio feature frame of 20 ms."""

HOP = 25
"""Ticks of a usual hop, 0.5 s."""

VISION_TICKS = 5
"""A vision frame stands for 100 ms, five ticks."""

PERIOD: Mapping[str, int] = {"audio": 1, "vision": VISION_TICKS}
"""Ticks that one feature vector stands for, which is from one to the next."""

SAMPLE_RATE = 16_000
"""Samples of sound per second, mono, in every part that takes sound."""

LIMIT = 3.0
"""Sentiment lies in [-3, 3]."""
