"""A page as the answer of a connection.

Knows headers. Knows no route.
"""

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Response

from .routes import Page


def response_of(connection: ServerConnection, page: Page) -> Response:
    """Return a page as a response, which nothing stores; to HEAD without its body."""
    response = connection.respond(page.status, page.body)
    del response.headers["Content-Type"]
    always = {"Content-Type": page.kind, "X-Content-Type-Options": "nosniff"}
    for name, value in ({"Cache-Control": "no-store"} | always | dict(page.headers)).items():
        response.headers[name] = value
    if connection.request and connection.request.method == "HEAD":
        response.body = b""
    return response
