"""The pages in real Firefox, with a camera and a microphone that it makes up itself."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from support.browser import aside
from support.capture_server import ReceivedFrames, capture_server
from support.dashboard import MINUS, at, feed, score, server
from support.devices import need
from support.firefox import PATIENCE, Firefox, firefox
from tamulag.streamer.bench.rig.devices import sound_server
from tamulag.streamer.bench.rig.processes import MICROPHONE, wait_for
from tamulag.streamer.protocol.ingest import PlacedFrame

pytestmark = pytest.mark.timeout(300)

RATE = 16000


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    need(MICROPHONE)
    with (
        sound_server(tmp_path_factory.mktemp("sound")) as sound,
        firefox(tmp_path_factory.mktemp("firefox"), sound.environment) as browser,
    ):
        yield browser


def test_the_dashboard_shows_scores(browser: Firefox) -> None:
    """The newest score with its sign, that of each modality, no complaint."""
    before = len(browser.complaints)
    with aside(server) as running:
        browser.open(at(running))
        browser.wait_for_text("#link", "live")
        feed(running, range(9))
        running.publish(**score(9, sentiment=-1.25))
        browser.wait_for_text("#score", f"{MINUS}1.25")
        browser.wait_for_text("#parts .audio .own", f"{MINUS}1.65")
        assert browser.complaints[before:] == []
        browser.open("about:blank")


def test_the_capture_page_sends_sound_and_pictures(browser: Firefox) -> None:
    """Sound without a gap, resampled from the device's own rate; pictures; the sign; then Stop."""
    before = len(browser.complaints)
    taken = ReceivedFrames()
    with aside(lambda: capture_server(taken)) as running:
        browser.open(f"{at(running)}capture")
        browser.click("#consent")
        browser.click("#start")
        browser.wait_for_text("#sign", "You are being seen and heard.")
        wait_for(lambda: seconds(taken.sounds) > 2.0, PATIENCE, "two seconds of sound come")
        wait_for(lambda: len(taken.pictures) > 5, PATIENCE, "pictures come")
        check_sound([*taken.sounds])
        assert {one.frame.picture[:2] for one in taken.pictures} == {b"\xff\xd8"}
        browser.click("#stop")
        browser.wait_for_text("#sign", "Nothing is captured.")
        assert browser.complaints[before:] == []
        browser.open("about:blank")


def seconds(sounds: list[PlacedFrame]) -> float:
    return sum(len(one.frame.sound) for one in sounds if one.frame.sound is not None) / RATE


def check_sound(sounds: list[PlacedFrame]) -> None:
    """Check that blocks follow each other and that a tone is in them, not silence."""
    spans = [one.span for one in sounds]
    assert all(end == begin for (_, end), (begin, _) in pairwise(spans))
    blocks = [one.frame.sound for one in sounds if one.frame.sound is not None]
    level = np.sqrt(np.mean(np.square(np.concatenate(blocks) / 32768.0)))
    assert level > 0.001
