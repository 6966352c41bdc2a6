"""A connection's request as the router reads it, and a page as its answer.

Knows headers. Knows no route.
"""

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from .routes import HttpRequest, Page


def request_of(peer: str, request: Request) -> HttpRequest:
    """Return what of a peer's request decides on its answer."""
    headers = request.headers
    return HttpRequest(
        method=request.method,
        target=request.path,
        peer=peer,
        hosts=headers.get_all("Host"),
        origins=headers.get_all("Origin"),
        authorizations=headers.get_all("Authorization"),
        is_upgrade="websocket" in ",".join(headers.get_all("Upgrade")).lower(),
    )


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
