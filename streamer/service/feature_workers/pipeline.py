"""What turns one session's frames into inputs, as a worker process has it.

Knows the features, the recogniser and the text encoder. Knows no pipe, no model and no clock: a
phrase is available when its sound was heard.
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
    """What a worker builds its front ends from.

    Attributes:
        checkpoint: Name or path; its text branch tells the text encoder.
        subject: Whose channel of a call is heard.
        asr: Recogniser of sessions that send sound and no words.
        asr_model: Folder of a Vosk model.
    """

    checkpoint: str = "default"
    subject: Role = "customer"
    asr: Engine = "auto"
    asr_model: str | None = None


class FeaturePipeline:
    """The front ends of one session: those that its hello offers.

    Args:
        front: What to build.
        encode: Words become token states.
        hello: Of the session's sender.

    Raises:
        SourceError: If the recogniser cannot be loaded.
        AssetError: If a pretrained part is missing or damaged.
    """

    def __init__(self, front: PipelineConfig, encode: Encode, hello: SenderHello) -> None:
        self._voice: RemoteAudio | None = None
        self._face: RemoteVision | None = None
        with ExitStack() as resources:
            if hello.audio or hello.words:
                self._voice = RemoteAudio(
                    _sound(front, encode, hello, resources), front.subject, encode
                )
                self._voice.begin(hello)
            if hello.vision:
                from ...features.vision import VisionFeatures

                self._face = RemoteVision(resources.enter_context(VisionFeatures()))
            self._resources = resources.pop_all()

    def take(self, placed: PlacedFrame, put: Put) -> None:
        """Put what a frame holds; see `Work`.

        Raises:
            ValueError: If such a frame was not offered.
        """
        work = self._face if isinstance(placed.frame.header, PictureHeader) else self._voice
        if work is None:
            raise ValueError(f"{placed.frame.header.kind} was not offered in the hello")
        work.push(placed, put)

    def losses(self) -> dict[str, int]:
        """Return the lost ticks; see `Source`."""
        works = (self._voice, self._face)
        return {key: n for work in works if work for key, n in work.losses().items()}

    def shed(self, steps: Collection[str]) -> None:
        """Save work where that is possible; see `Source`."""
        for work in (self._voice, self._face):
            if work is not None:
                work.shed(steps)

    def close(self, put: Put) -> None:
        """Put the last words and free everything, within 3 s; a recogniser that hangs stays."""
        try:
            if self._voice:
                self._voice.end(put)
        finally:
            self._resources.close()


def load(front: PipelineConfig) -> Encode:
    """Load what all sessions share, and try the rest once: what is missing is told at the start.

    Returns:
        Words -> token states, for `FrontEnds`.

    Raises:
        CheckpointError: If the checkpoint cannot be read.
        SourceError: If the recogniser cannot be loaded.
        AssetError: If a pretrained part is missing or damaged.
    """
    from tamulag.models.text.text_encoder import encoder_for

    encode = encoder_for(front.checkpoint).encode
    encode(["hello"])
    sound = SoundForm(encoding="pcm_s16le", rate=16000)
    every = SenderHello(audio=sound, vision=PictureForm(encoding="jpeg"))
    FeaturePipeline(front, encode, every).close(lambda _: None)
    return encode


def _sound(
    front: PipelineConfig, encode: Encode, hello: SenderHello, resources: ExitStack
) -> AudioPipeline:
    from ...features.audio import AudioFeatures

    # Who sends words has recognised them.
    recogniser = None if hello.words else open_recogniser(front.asr, front.asr_model)
    listener = None
    if recogniser is not None:
        listener = PhraseRecogniser(recogniser, encode)
    path = AudioPipeline(AudioFeatures(), listener, threaded=True)
    resources.callback(path.close)
    return path
