"""What the tests of the pages share: a server of messages that a test makes."""

from collections.abc import Iterator

import pytest

from support.browser import Aside, aside
from support.dashboard import server


@pytest.fixture
def running() -> Iterator[Aside]:
    """Serve the dashboard."""
    with aside(server) as running:
        yield running
