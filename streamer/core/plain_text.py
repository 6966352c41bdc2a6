"""Text from outside without what acts on a terminal, a log or a line: only what can be read.

Knows characters. Knows not where a text comes from.
"""

import re
import unicodedata

_SEQUENCES = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # a title, a link, the clipboard
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # a colour, a place on the screen
    r"|\x1b[PX^_][^\x1b]*(?:\x1b\\)?"  # a string for the terminal itself
    r"|\x1b[ -/]*[0-~]?"
)
"""Escape sequences of terminals (ECMA-48), ended or not."""

_TURNS = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u061c"
"""Characters that turn the direction of what follows, so that it reads as something else."""

_BREAKS = "\t\n\r\u2028\u2029"
"""Characters that become a blank."""

_OTHER = {"Cc", "Cs", "Zl", "Zp"}
"""Categories of Unicode: controls, halves of characters, separators of lines and paragraphs."""


def plain(text: str) -> str:
    """Return a text without escape sequences, controls and turns of direction.

    A line break or a tab becomes a blank.
    """
    if text.isascii() and text.isprintable():
        return text
    text = _SEQUENCES.sub("", text)
    return "".join(
        " " if char in _BREAKS else char
        for char in text
        if char in _BREAKS or not (char in _TURNS or unicodedata.category(char) in _OTHER)
    )
