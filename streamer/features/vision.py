"""Turn a picture into one feature vector of the face in it: expression, head pose, size.

Knows RGB arrays. Knows no camera and no normalisation: live and training call the same code.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from ..core.sample import Array, Sample
from .pretrained import locate

if TYPE_CHECKING:
    from mediapipe.tasks.python.vision import FaceLandmarker, FaceLandmarkerResult

BLENDSHAPES: tuple[str, ...] = (
    *("_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft"),
    *("browOuterUpRight", "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft"),
    *("eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight"),
    *("eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft"),
    *("eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen"),
    *("jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft"),
    *("mouthFrownRight", "mouthFunnel", "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight"),
    *("mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight", "mouthRollLower"),
    *("mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight"),
    *("mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight"),
    *("noseSneerLeft", "noseSneerRight"),
)
FEATURE_NAMES: tuple[str, ...] = (*BLENDSHAPES, "yaw", "pitch", "roll", "face_size", "presence")
VISION_DIM = len(FEATURE_NAMES)

Image = npt.NDArray[np.uint8]


def head_pose(matrix: npt.NDArray[np.floating]) -> tuple[float, float, float]:
    """Split a face-to-camera matrix into angles, turning first by roll, then pitch, then yaw.

    Args:
        matrix: Shape (4, 4); x to the right of the picture, y up, z towards the camera.

    Returns:
        Yaw, pitch and roll in radians: positive where the face turns to the right of the picture,
        looks up, and leans to the left of the picture.
    """
    x, y, z = (float(value) for value in matrix[:3, 2])
    roll = math.atan2(matrix[1, 0], matrix[1, 1])
    return math.atan2(x, z), math.atan2(y, math.hypot(x, z)), roll


def _vector(result: "FaceLandmarkerResult") -> Array:
    values = np.empty(VISION_DIM, np.float32)
    values[: len(BLENDSHAPES)] = [shape.score for shape in result.face_blendshapes[0]]
    heights = [point.y for point in result.face_landmarks[0]]
    size = min(max(heights) - min(heights), 1.0)
    pose = head_pose(result.facial_transformation_matrixes[0])
    values[len(BLENDSHAPES) :] = (*pose, size, 1.0)
    return values


@contextmanager
def _muted_stderr() -> Iterator[None]:
    # Loading writes harmless warnings past Python and no variable stops them (MediaPipe 1.2).
    saved = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _landmarker(model: bytes, *, still: bool) -> "FaceLandmarker":
    from mediapipe.tasks.python import BaseOptions, vision

    mode = vision.RunningMode.IMAGE if still else vision.RunningMode.VIDEO
    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_buffer=model),
        running_mode=mode,
        num_faces=1,
        output_face_blendshapes=True,
        output_facial_transformation_matrixes=True,
    )
    with _muted_stderr():
        return vision.FaceLandmarker.create_from_options(options)


class VisionFeatures:
    """Compute one `Sample("vision", ...)` per picture; one instance per camera or file.

    Moving pictures are tracked: a face found in one picture is searched near that place in the
    next, and its landmarks are smoothed causally. Of several faces the most distinct is used.

    Args:
        model_path: The landmarker's file from the config; None: the installed one.
        still: Treat each picture on its own, for training on single pictures.

    Raises:
        AssetError: If the landmarker's file is missing or damaged.
    """

    def __init__(self, model_path: Path | None = None, *, still: bool = False) -> None:
        model = locate("face-landmarker", model_path).read_bytes()
        self._still = still
        self._landmarker = _landmarker(model, still=still)
        self._newest_millisecond = -1

    def push(self, image: Image, timestamp: float) -> Sample:
        """Describe the face in a picture.

        Args:
            image: Shape (H, W, 3), uint8, RGB.
            timestamp: When it was captured, seconds on the session clock; one that does not rise
                is tracked as if it came one millisecond after the picture before.

        Returns:
            Shape (57,), float32, in the order of `FEATURE_NAMES`; `values` is None with the
            reason `no_face` where there is none.

        Raises:
            ValueError: If the image has another shape or dtype.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(
                f"image must be uint8 of shape (H, W, 3), got {image.dtype} {image.shape}: "
                "convert it to RGB"
            )
        result = self._detect(image, timestamp)
        if not result.face_landmarks:
            return Sample("vision", timestamp, None, "no_face")
        return Sample("vision", timestamp, _vector(result))

    def _detect(self, image: Image, timestamp: float) -> "FaceLandmarkerResult":
        from mediapipe import Image as Picture
        from mediapipe import ImageFormat

        picture = Picture(ImageFormat.SRGB, np.ascontiguousarray(image))
        if self._still:
            return self._landmarker.detect(picture)
        self._newest_millisecond = max(self._newest_millisecond + 1, round(timestamp * 1000))
        return self._landmarker.detect_for_video(picture, self._newest_millisecond)

    def close(self) -> None:
        """Release the landmarker and its threads; may be called twice."""
        self._landmarker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
