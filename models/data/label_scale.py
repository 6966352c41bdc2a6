"""The scales of labels: MOSI and MOSEI in [-3, 3], SIMS in [-1, 1]."""

from typing import Literal

from ..nn.constants import LIMIT

Form = Literal["mosi", "sims"]

LIMITS: dict[Form, float] = {"mosi": LIMIT, "sims": 1.0}
"""Largest label of each form."""


def label_scale(form: Form) -> float:
    """Return the factor from an estimate in [-3, 3] to the range of a form's labels."""
    return LIMITS[form] / LIMIT
