"""The dashboard's files: there, of the right type, locked down, and from this machine alone."""

import importlib.util
import re
import tomllib
from fnmatch import fnmatch
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from support.websocket_peers import ask, serve
from tamulag.streamer.publishers.publisher import PublisherError
from tamulag.streamer.webserver import dashboard, widgets
from tamulag.streamer.webserver.access_control import Access, Token
from tamulag.streamer.webserver.server import WebSocketPublisher

ROOT = Path(__file__).parents[2]
WEB = ROOT / "streamer" / "webserver" / "static"
HTML = (WEB / "index.html").read_text()


def server(token: str | None = None) -> WebSocketPublisher:
    access = Access(tokens=(Token(token),) if token else ())
    return WebSocketPublisher(
        access, 0, hello=lambda: "hello", missed=str, routes=dashboard.routes()
    )


@pytest.mark.parametrize("path", [*dashboard.FILES, dashboard.LIBRARY])
def test_every_file_is_served_with_its_type_and_policy(path: str) -> None:
    """Also behind a token: the page must come before somebody can type one."""
    kind = dashboard.FILES.get(path, ("", "text/javascript; charset=utf-8"))[1]

    async def scenario(server: WebSocketPublisher) -> None:
        status, answer = await ask(server, path)
        assert status == 200
        head = answer.split("\r\n\r\n")[0].lower()
        assert f"content-type: {kind}" in head
        assert "x-content-type-options: nosniff" in head
        assert f"content-security-policy: {dashboard.POLICY}".lower() in head
        assert head.count("cache-control") == 1

    serve(scenario, server("correct-horse-battery"))


def test_only_the_library_is_cached_for_ever() -> None:
    """Its version is part of its path; our own files change with the program."""
    routes = dashboard.routes()
    kept = {path for path, one in routes.items() if "immutable" in str(one.make().headers)}
    assert kept == {dashboard.LIBRARY}
    assert "/lightweight-charts-5.2.0.js" in HTML


def test_the_page_has_nothing_inline_and_asks_no_other_machine() -> None:
    """The policy would block it, and it must work offline."""
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", HTML)
    assert "unsafe" not in dashboard.POLICY
    for source in re.findall(r'(?:src|href)="([^"]+)"', HTML):
        others = {"#now", "https://www.tradingview.com/"}
        assert source in {*dashboard.FILES, *widgets.CAPTURE, dashboard.LIBRARY, *others}


def test_every_module_that_is_imported_is_served() -> None:
    """A forgotten path would be a 404 in the browser."""
    named = {
        name
        for path in WEB.glob("*.js")
        for name in re.findall(r'from "\.(/[^"]+)"', path.read_text())
    }
    assert named
    assert named <= set(dashboard.FILES)


def test_the_files_are_in_the_wheel() -> None:
    """The build takes what package-data names, and nothing else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    globs = project["tool"]["setuptools"]["package-data"]["tamulag.streamer.webserver"]
    for name, _ in dashboard.FILES.values():
        assert (WEB / name).is_file()
        assert any(fnmatch(f"static/{name}", glob) for glob in globs)


def test_a_missing_library_is_reported_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line names the package and its version."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(PublisherError, match=r"pip install akquant-lwc==0\.1\.1"):
        dashboard.routes()


def test_another_file_in_its_place_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A script that nobody has looked at is not given to browsers."""
    name = tmp_path / "assets" / "lightweight-charts.standalone.production.js"
    name.parent.mkdir()
    name.write_text("alert(1)")
    spec = ModuleSpec("akquant_lwc", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    with pytest.raises(PublisherError, match="is not the file that was checked"):
        dashboard.routes()
