"""What all tests share: one torch thread, a small model, real data, a browser, no silent skips."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import torch
from hypothesis import Phase

from support.paths import DATA
from tamulag.models import ModelConfig, TamUlag
from tamulag.models.nn.tam_ulag import BranchConfig

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from support.onnx_exports import Exported

torch.set_num_threads(1)

RAY = ("app/test_build_cluster.py", "bench/test_node_failure.py", "offline/test_extract_ray.py")
"""Files that start a Ray of their own: one process runs them, one after the other."""

TOGETHER = ("features/asr",)
"""Folders whose files share what is slow to start."""

SHIPPED = ModelConfig(scales=True, shares=(0.45, 0.15, 0.55))
"""The forms of the checkpoint that is shipped."""

FIRST = (*RAY, "test_live.py", "cli/test_run_serve.py", "bench/test_faults.py")
"""Files that take longest: at the end one process would wait for the other."""

# Shrinking has no limit of its own and took minutes; a failure prints what reproduces it.
SEARCH = (Phase.explicit, Phase.reuse, Phase.generate)
hypothesis.settings.register_profile("tests", deadline=None, phases=SEARCH, print_blob=True)
hypothesis.settings.register_profile("shrink", deadline=None, print_blob=True)
hypothesis.settings.load_profile("shrink" if os.environ.get("TAMULAG_SHRINK") else "tests")


@pytest.fixture(scope="session")
def data() -> Path:
    """Return the folder of the real clips and corpora, or skip: users do not have it."""
    if not (DATA / "README.md").is_file():
        pytest.skip(
            f"no data folder at {DATA}: set TAMULAG_DATA to the folder with clips/ and mosi/"
        )
    return DATA


@pytest.fixture
def model() -> TamUlag:
    """Return a tiny model with fixed random weights."""
    torch.manual_seed(0)
    branch = partial(BranchConfig, hidden=6, layers=2, dropout=0.0)
    return TamUlag(
        ModelConfig(
            text=branch(dim=5),
            audio=branch(dim=4),
            vision=branch(dim=3, period=5),
            semantic=4,
            head=6,
            dropout=0.0,
            window=100,
        )
    ).eval()


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> "Exported":
    """Return a tiny model of the shipped forms and its export, checked as the verb does it."""
    from support.onnx_exports import checked_once

    return checked_once(tmp_path_factory, "shipped-forms", SHIPPED)


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Run a browser for the tests of a file: Playwright keeps its thread from running asyncio."""
    from support.browser import chromium

    with chromium() as browser:
        yield browser


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files."""
    order = {f"tests/{name}": place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(_file(item.nodeid), len(order)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Give whole files to the processes, so that what they share is made once."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = _file(nodeid).removeprefix("tests/")
            folder = file.rpartition("/")[0]
            return "ray" if file in RAY else folder if folder in TOGETHER else file

    return ByFile(config, log)


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    """Turn a skip into a failure where nothing may be skipped (TAMULAG_NO_SKIP=1, as in CI)."""
    outcome = yield
    report = outcome.get_result()
    if (
        report.skipped
        and os.environ.get("TAMULAG_NO_SKIP") == "1"
        and not hasattr(report, "wasxfail")
    ):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which is not allowed here: {report.longrepr}"
