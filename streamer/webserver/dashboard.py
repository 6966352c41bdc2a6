"""The dashboard's files as routes: its own from static/, and the chart library of a package.

Knows their paths, types and headers. Knows no socket and no content of the page.
"""

import hashlib
import importlib.util
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

from ..publishers.publisher import PublisherError
from .routes import Page, Route

STATIC = Path(__file__).parent / "static"

FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    **{
        f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8")
        for name in ("app", "chart", "link", "marks", "panels", "past", "store", "words")
    },
}
"""Path -> file in static/ and its type."""

PACKAGE = "akquant-lwc==0.1.1"
LIBRARY = "/lightweight-charts-5.2.0.js"
SHA256 = "c0992580867c4912cc9385b3c2728315bcc1a76c7f1087dca908430fccdf31d7"

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""Our own files alone, no inline script or style, never inside a frame."""

_OWN = (
    ("Cache-Control", "no-cache"),
    ("Content-Security-Policy", POLICY),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
_FOR_EVER = (("Cache-Control", "public, max-age=31536000, immutable"), *_OWN[1:])
"""The library's version is part of its path."""


def routes() -> Mapping[str, Route]:
    """Return the dashboard's files as public routes by path; they contain no data of a session.

    Raises:
        PublisherError: If the chart library is missing or differs from the checked version.
        OSError: If the installation lacks a file of static/.
    """
    pages = {
        path: Page(HTTPStatus.OK, (STATIC / name).read_text(encoding="utf-8"), kind, _OWN)
        for path, (name, kind) in FILES.items()
    }
    script = "text/javascript; charset=utf-8"
    pages[LIBRARY] = Page(HTTPStatus.OK, library(), script, _FOR_EVER)
    return {path: _route(page) for path, page in pages.items()}


def library() -> str:
    """Return the chart library's text; its package is located, never imported.

    Raises:
        PublisherError: If it is missing or differs from the checked version.
    """
    spec = importlib.util.find_spec("akquant_lwc")
    folders = spec.submodule_search_locations if spec else None
    name = "assets/lightweight-charts.standalone.production.js"
    path = Path(folders[0], name) if folders else None
    if path is None or not path.is_file():
        raise PublisherError(f"the dashboard needs {name}: pip install {PACKAGE}")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise PublisherError(
            f"{path} is not the file that was checked: pip install --force-reinstall {PACKAGE}"
        )
    return content.decode()


def _route(page: Page) -> Route:
    return Route(make=lambda: page, is_public=True)
