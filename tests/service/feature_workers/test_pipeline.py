"""Feature pipeline of one session: opens what the hello offers, and processes its frames."""

import time

import pytest

from support.senders import BOTH, PICTURES_ONLY, SOUND_ONLY, WORDS, picture, speech, words
from tamulag.models.runtime.checkpoint import CheckpointError
from tamulag.models.text.text_encoder import encoder_for
from tamulag.streamer.core.sample import Array, Input, Notice, Phrase, Sample
from tamulag.streamer.core.source import SourceError, SourceLost
from tamulag.streamer.features.asr.moonshine import MoonshineRecogniser
from tamulag.streamer.features.asr.recogniser import Encode
from tamulag.streamer.features.asr.transcript import Hypothesis
from tamulag.streamer.protocol.ingest import PlacedFrame
from tamulag.streamer.service.feature_workers.pipeline import FeaturePipeline, PipelineConfig, load

SILENT = PipelineConfig(asr="none")


@pytest.fixture(scope="module")
def encode() -> Encode:
    return encoder_for("default").encode


def test_sound_becomes_samples_and_words(encode: Encode) -> None:
    """A phrase is available at the end of its sound, however long its recognition took."""
    got: list[Input] = []
    pipeline = FeaturePipeline(PipelineConfig(), encode, SOUND_ONLY)
    for fed in speech(6.0):
        pipeline.push(fed, got.append)
    pipeline.close(got.append)
    phrases = [item for item in got if isinstance(item, Phrase)]
    voiced = [item for item in got if isinstance(item, Sample) and item.values is not None]
    assert len(voiced) > 100
    lines = [" ".join(word.text for word in phrase.words).lower() for phrase in phrases]
    assert any("best of times" in line for line in lines)
    assert all(0.0 < phrase.timestamp <= 6.01 for phrase in phrases)
    assert {item.modality for item in voiced} == {"audio"}


def test_a_recogniser_that_fails_takes_only_the_words(
    encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The audio features continue, and words come again from reloaded weights."""
    whole, failed = MoonshineRecogniser.accept, list[int]()

    def fail_once(self: MoonshineRecogniser, block: Array, start: int) -> list[Hypothesis]:
        if start > 16000 and not failed:
            failed.append(start)
            raise SourceLost("asr_lost", "out of memory")
        return whole(self, block, start)

    monkeypatch.setattr(MoonshineRecogniser, "accept", fail_once)
    got: list[Input] = []
    pipeline = FeaturePipeline(PipelineConfig(), encode, SOUND_ONLY)
    for fed in speech(8.0):
        pipeline.push(fed, got.append)
        time.sleep(0.03)
    pipeline.close(got.append)
    notices = [(item.modality, item.reason) for item in got if isinstance(item, Notice)]
    assert notices == [("text", "asr_lost"), ("text", None)]
    back = max(place for place, item in enumerate(got) if isinstance(item, Notice))
    assert any(isinstance(item, Phrase) and item.words for item in got[back:])
    assert sum(isinstance(item, Sample) for item in got) > 390
    assert 0 < pipeline.losses()["asr"] < 250


def test_a_picture_becomes_a_sample(encode: Encode) -> None:
    """With the face's features; nothing is lost."""
    got: list[Input] = []
    pipeline = FeaturePipeline(SILENT, encode, BOTH)
    for count in range(3):
        pipeline.push(picture(count), got.append)
    pipeline.close(got.append)
    assert [isinstance(item, Sample) and item.values is not None for item in got] == [True] * 3
    assert pipeline.losses() == {"audio": 0, "asr": 0, "vision": 0}


@pytest.mark.parametrize(
    ("hello", "fed", "kind"),
    [(SOUND_ONLY, picture(0), "image"), (PICTURES_ONLY, words("so well", 1.0), "words")],
    ids=["picture", "words"],
)
def test_what_was_not_offered_is_refused(
    encode: Encode, hello: object, fed: PlacedFrame, kind: str
) -> None:
    """The error names the kind of frame."""
    pipeline = FeaturePipeline(SILENT, encode, hello)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"{kind} was not offered"):
        pipeline.push(fed, lambda _: None)
    pipeline.close(lambda _: None)


def test_a_sender_of_words_needs_no_recogniser(encode: Encode) -> None:
    """Sound without words opens one; here it has no model, which the error names."""
    unusable = PipelineConfig(asr="vosk")
    got: list[Input] = []
    pipeline = FeaturePipeline(unusable, encode, WORDS)
    pipeline.push(words("so well", 1.0), got.append)
    pipeline.close(got.append)
    assert [word.text for item in got if isinstance(item, Phrase) for word in item.words] == [
        *("so", "well")
    ]
    with pytest.raises(SourceError, match="asr vosk needs the folder of a model"):
        FeaturePipeline(unusable, encode, SOUND_ONLY)


def test_missing_files_fail_at_the_start() -> None:
    """Checkpoint and recogniser are tried before the first session."""
    with pytest.raises(CheckpointError, match="nowhere"):
        load(PipelineConfig(checkpoint="nowhere"))
    with pytest.raises(SourceError, match="asr vosk needs the folder of a model"):
        load(PipelineConfig(asr="vosk"))
