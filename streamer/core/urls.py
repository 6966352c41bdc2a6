"""Addresses of network streams: their schemes, and what of one may be shown.

Knows how URLs are written, also by people who forget to escape a password. Opens nothing.
"""

import re

SCHEMES = ("http", "https", "rtsp", "rtmp", "rtmps", "rtp", "srt", "tcp", "udp")
"""Of the streams that can be read from a network."""

HIDDEN = "..."
"""Replaces what may be a password."""

# Cameras also take a password as parameter, behind `?` or `;` or within the path, `/user=me&pw=x`.
_ADDRESS = re.compile(
    r"([a-z][a-z0-9+.-]*://)(?:[^/?#]*@)?([^/?#@;&=\s]*(?:/[^?#@;&=\s]*)?)(?:[?#;&=][^@]*)?",
    re.IGNORECASE,
)
_UNFINISHED = re.compile(r"\w{2,}:.*@", re.DOTALL)  # one letter is a drive of Windows


def redacted(address: str) -> str:
    """Return what logs and messages may hold of an address.

    That is scheme, host, port, and the path up to the first parameter. User name and password go,
    query and fragment too. An `@` after the host may end a password that holds an unescaped `/`,
    `?` or `#`: then only the scheme is shown. What is no address, as a path, stays as it is, but
    for line breaks and bytes that are no text: a message is one line of UTF-8.
    """
    return _printable(_bare(address))


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _bare(address: str) -> str:
    if "://" not in address:
        return HIDDEN if _UNFINISHED.search(address) else address
    if parts := _ADDRESS.fullmatch(address):
        return parts[1] + parts[2]
    scheme = address.partition("://")[0]
    return f"{scheme}://{HIDDEN}" if scheme in SCHEMES else HIDDEN
