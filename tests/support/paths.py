"""Where the project's files and the real clips and corpora lie."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("TAMULAG_DATA", ROOT.parent / "shared" / "data"))
BIN = Path(sys.executable).parent
"""Where the console scripts lie."""
