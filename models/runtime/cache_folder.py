"""Where fetched and joined files lie: the platform's cache folder.

Knows environment variables. Creates nothing.
"""

import os
import sys
from pathlib import Path


def cache_dir() -> Path:
    """Return the folder of fetched parts: the platform's cache folder and `tamulag` in it."""
    if sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "tamulag"
