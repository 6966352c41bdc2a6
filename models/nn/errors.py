"""The root of every expected failure, and the one of the text encoders.

Knows no torch, so that a program can name it before it loads a model.
"""


class TamulagError(Exception):
    """Something that a person can mend went wrong; the text names the value and the remedy."""


class TextEncoderError(TamulagError):
    """The package of a text encoder is missing or damaged."""
