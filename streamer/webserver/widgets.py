"""Static files beside the dashboard: the element for other pages, and the capture page.

Knows these files of static/ and their headers. Knows no socket and no access rules.
"""

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

from .routes import Page, Route

STATIC = Path(__file__).parent / "static"

METER = {"/meter.js": "meter.js"}
CAPTURE = {
    "/capture": "capture.html",
    "/capture.js": "capture.js",
    "/capture.css": "capture.css",
    "/capture-worklet.js": "capture-worklet.js",
}

_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_FOR_ANY_PAGE = (
    ("Access-Control-Allow-Origin", "*"),
    ("Cross-Origin-Resource-Policy", "cross-origin"),
)
_OWN = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; media-src blob: mediastream:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'",
    ),
    ("Permissions-Policy", "camera=(self), microphone=(self)"),
    ("Referrer-Policy", "no-referrer"),
)
"""Our own files alone, never inside a frame: a page that records must not be embedded."""


def routes(*, captures: bool = False) -> Mapping[str, Route]:
    """Return the files as public routes by path; they contain no data of a session.

    Args:
        captures: Whether the capture page is included, because senders are accepted.

    Raises:
        OSError: If the installation lacks a file.
    """
    found = {path: _route(name, _FOR_ANY_PAGE) for path, name in METER.items()}
    if captures:
        found |= {path: _route(name, _OWN) for path, name in CAPTURE.items()}
    return found


def _route(name: str, headers: tuple[tuple[str, str], ...]) -> Route:
    path = STATIC / name
    kind = f"{_KINDS[path.suffix]}; charset=utf-8"
    page = Page(HTTPStatus.OK, path.read_text(encoding="utf-8"), kind, headers)
    return Route(make=lambda: page, is_public=True)
