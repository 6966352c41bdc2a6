"""axe-core on a page: faults of accessibility. It is fetched by npm at the first use."""

import subprocess
from pathlib import Path
from shutil import which

import pytest
from playwright.sync_api import Page

from .paths import ROOT

AXE = "axe-core@4.14.1"


def faults(page: Page) -> list[str]:
    """Return what is serious or critical: the rule's name and the elements that break it."""
    return _serious(page, "axe.run()")


def dark_faults(page: Page) -> list[str]:
    """Return the same of the page's dark colours: of all rules, those about colours."""
    page.emulate_media(color_scheme="dark")
    rules = ["color-contrast", "link-in-text-block"]
    return _serious(page, f"axe.run({{runOnly: {{type: 'rule', values: {rules}}}}})")


def _serious(page: Page, run: str) -> list[str]:
    # Evaluated, not added as an element: the policies of our pages would keep that out.
    page.evaluate(script().read_text(encoding="utf-8"))
    found = page.evaluate(run)["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    return [f"{one['id']}: {[node['html'] for node in one['nodes']]}" for one in serious]


def script() -> Path:
    """Return axe-core's script; skip where npm is missing or cannot fetch it."""
    if which("npm") is None:
        pytest.skip("needs npm: apt-get install npm")
    folder = ROOT / ".venv" / "axe"
    path = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), AXE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            pytest.skip(f"npm cannot fetch {AXE}: {done.stderr.strip()[-200:]}")
    return path
