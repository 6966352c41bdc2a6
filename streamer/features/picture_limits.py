"""What OpenCV may decode: no more pixels than a sender's picture may have.

Knows OpenCV's environment variable. Opens no picture.
"""

import os

from ..protocol.ingest import MAX_SIDE

VARIABLE = "OPENCV_IO_MAX_IMAGE_PIXELS"


def limit_pictures() -> None:
    """Limit the pixels of a decoded picture; to be called before anything imports `cv2`.

    OpenCV reads the variable when it is loaded. A value that is set already stays.
    """
    os.environ.setdefault(VARIABLE, str(MAX_SIDE**2))
