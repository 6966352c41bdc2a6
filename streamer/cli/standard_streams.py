"""Make the three standard streams usable, however the program was started.

Knows file descriptors. Knows no verb and no log.
"""

import contextlib
import io
import os
import sys

_NAMES = ("stdin", "stdout", "stderr")


def make_usable() -> None:
    """Open what is closed, and let no character be an error.

    A closed stream becomes the null device: else the next file or socket that is opened would get
    its number, and what is printed would go there. A character that the encoding of a terminal
    lacks is written as its number.
    """
    for number, name in enumerate(_NAMES):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            stream = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors != "backslashreplace":
            with contextlib.suppress(OSError):  # it cannot be set in a stream of an odd kind
                stream.reconfigure(errors="backslashreplace")
