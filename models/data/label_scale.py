"""The scales of labels: MOSI in [-3, 3], SIMS in [-1, 1]."""

from typing import Literal

Form = Literal["mosi", "sims"]

LIMITS: dict[Form, float] = {"mosi": 3.0, "sims": 1.0}
"""Range of the labels; the model's estimates are scaled to it."""
