"""`python -m tamulag.streamer` is `tamulag-stream`."""

import sys

from .cli.main import stream_main

sys.exit(stream_main())
