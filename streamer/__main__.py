"""`python -m tamulag.streamer` is `tamulag-stream`."""

import sys

from .cli import stream_main

sys.exit(stream_main())
