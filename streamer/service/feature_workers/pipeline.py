"""Feature pipeline of one session in a worker process: frames in, samples and phrases out.

Knows the features, the recogniser and the text encoder. Knows no pipe, no model and no clock: a
phrase is available at the end of its sound, however long its recognition took.
"""

from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass

from ...core.source import Put
from ...features.asr.open import Engine, open_recogniser
from ...features.asr.recogniser import Encode, PhraseRecogniser
from ...features.audio_pipeline import AudioPipeline
from ...protocol.ingest import PictureForm, PictureHeader, PlacedFrame, SenderHello, SoundForm
from ...protocol.messages import Role
from ...sources.remote_features import RemoteAudio, RemoteVision


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """Settings of a worker's feature pipelines.

    Attributes:
        checkpoint: Name or path; its text branch selects the text encoder.
        subject: Role of the speaker whose channel of a call is used.
        asr: Recogniser of sessions that send sound and no words.
        asr_model: Folder of a Vosk model; required by `vosk`.
    """

    checkpoint: str = "default"
    subject: Role = "customer"
    asr: Engine = "auto"
    asr_model: str | None = None


class FeaturePipeline:
    """The front ends (sound, pictures, words) that one session's hello offers.

    Args:
        config: Settings.
        encode: Words -> token states.
        hello: Of the session's sender.

    Raises:
        SourceError: If the recogniser cannot be loaded.
        AssetError: If a pretrained part is missing or damaged.
    """

    def __init__(self, config: PipelineConfig, encode: Encode, hello: SenderHello) -> None:
        self._sound: RemoteAudio | None = None
        self._vision: RemoteVision | None = None
        with ExitStack() as resources:
            if hello.audio or hello.words:
                self._sound = RemoteAudio(
                    _sound(config, encode, hello, resources), config.subject, encode
                )
                self._sound.begin(hello)
            if hello.vision:
                from ...features.vision import VisionFeatures

                self._vision = RemoteVision(resources.enter_context(VisionFeatures()))
            self._resources = resources.pop_all()

    def push(self, placed: PlacedFrame, put: Put) -> None:
        """Process a frame and put its samples and phrases.

        Raises:
            ValueError: If the hello did not offer frames of that kind.
        """
        front_end = self._vision if isinstance(placed.frame.header, PictureHeader) else self._sound
        if front_end is None:
            raise ValueError(f"{placed.frame.header.kind} was not offered in the hello")
        front_end.push(placed, put)

    def losses(self) -> dict[str, int]:
        """Return the losses; see `Source.losses`."""
        front_ends = (self._sound, self._vision)
        return {key: n for one in front_ends if one for key, n in one.losses().items()}

    def shed(self, steps: Collection[str]) -> None:
        """Reduce the work; see `Source.shed`."""
        for front_end in (self._sound, self._vision):
            if front_end is not None:
                front_end.shed(steps)

    def close(self, put: Put) -> None:
        """Put the last words and free all resources, within 3 s; a recogniser that hangs leaks."""
        try:
            if self._sound:
                self._sound.end(put)
        finally:
            self._resources.close()


def load(config: PipelineConfig) -> Encode:
    """Load what all sessions share, and try the rest once: missing files fail at the start.

    Returns:
        Words -> token states, for `FeaturePipeline`.

    Raises:
        CheckpointError: If the checkpoint cannot be read.
        SourceError: If the recogniser cannot be loaded.
        AssetError: If a pretrained part is missing or damaged.
    """
    from tamulag.models.text.text_encoder import encoder_for

    encode = encoder_for(config.checkpoint).encode
    encode(["hello"])
    sound = SoundForm(encoding="pcm_s16le", rate=16000)
    every = SenderHello(audio=sound, vision=PictureForm(encoding="jpeg"))
    FeaturePipeline(config, encode, every).close(lambda _: None)
    return encode


def _sound(
    config: PipelineConfig, encode: Encode, hello: SenderHello, resources: ExitStack
) -> AudioPipeline:
    from ...features.audio import AudioFeatures

    # A sender of words runs its own recogniser.
    recogniser = None if hello.words else open_recogniser(config.asr, config.asr_model)
    listener = None
    if recogniser is not None:
        listener = PhraseRecogniser(recogniser, encode)
    path = AudioPipeline(AudioFeatures(), listener, threaded=True)
    resources.callback(path.close)
    return path
