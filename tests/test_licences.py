"""docs/explanation/licences.md names all that may not go into a product as it is."""

import re
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

PAGE = Path(__file__).parent.parent / "docs" / "explanation" / "licences.md"

PERMISSIVE = re.compile(
    r"MIT|BSD|Apache|ISC|PSF|Python Software Foundation|Zlib|0BSD|CC0|BSL-1\.0|CNRI|LLVM-exception"
    r"|matplotlib"
)
RESTRICTED = re.compile(r"GPL|MPL|EPL|Mozilla|Proprietary|Commercial|UNKNOWN|SSPL|NC-")


def dependencies() -> list[metadata.Distribution]:
    """Return what this package needs with all extras, and what that needs, as it is installed."""
    found: dict[str, metadata.Distribution] = {}
    todo: list[tuple[str, tuple[str, ...]]]
    todo = [("tamulag-stream", ("zh", "train", "ray", "onnx", "test", "check"))]
    while todo:
        name, extras = todo.pop()
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # of another platform
        if found.setdefault(name, distribution) is not distribution:
            continue
        for line in distribution.requires or ():
            needed = Requirement(line)
            wanted = ({"extra": extra} for extra in (*extras, ""))
            if needed.marker is None or any(map(needed.marker.evaluate, wanted)):
                todo.append((needed.name.lower(), tuple(needed.extras)))
    del found["tamulag-stream"]
    return list(found.values())


def licence(distribution: metadata.Distribution) -> str:
    """Return what the metadata say, in the order in which they are to be believed."""
    said = distribution.metadata
    classified = [c for c in said.get_all("Classifier") or () if c.startswith("License ::")]
    lines = (said["License"] or "").strip().splitlines()[:1]
    return " ".join((said["License-Expression"] or "", *lines, *classified))


def is_permissive(text: str) -> bool:
    """Return whether a licence allows everything; of a choice (OR) one such is enough."""
    if " OR " in text:
        return any(is_permissive(one) for one in text.split(" OR "))
    return bool(PERMISSIVE.search(text)) and not RESTRICTED.search(text)


def rows(chapter: str) -> list[list[str]]:
    """Return the cells of a chapter's table, without its head."""
    text = PAGE.read_text().split(f"\n## {chapter}\n")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_every_package_that_is_not_permissive_is_named() -> None:
    """And none that is; rows of what is not installed here, as CUDA on a Mac, may stand."""
    found = {d.metadata["Name"].lower(): licence(d) for d in dependencies()}
    assert len(found) > 80
    other = {name for name, text in found.items() if not is_permissive(text)}
    named = [row[0] for row in rows("Packages")]
    assert {name for name in other if not any(fnmatch(name, row) for row in named)} == set()
    assert [name for name in found.keys() - other if name in named] == []


@pytest.mark.parametrize(
    ("text", "is_so"),
    [
        ("MIT", True),
        ("EPL-2.0 OR BSD-3-Clause", True),
        ("MPL-2.0 AND MIT", False),
        ("LGPL-3.0-only", False),
        ("UNKNOWN License :: OSI Approved :: Apache Software License", False),
        ("", False),
    ],
)
def test_what_is_permissive(text: str, is_so: bool) -> None:
    """The test above would notice."""
    assert is_permissive(text) is is_so


def test_what_the_media_library_carries() -> None:
    """Each library of PyAV's wheel with a copyleft is named, with what FFmpeg calls itself."""
    import av
    from av._core import library_meta

    inside = {row[1]: row[0] for row in rows("Libraries inside wheels")}
    names = ", ".join(name for name, package in inside.items() if package == "av")
    folder = Path(av.__file__).parent.parent / "av.libs"
    files = {path.name.split("-")[0] for path in folder.glob("lib*")}
    free = re.compile(  # BSD, MIT and Apache-2.0
        r"lib(SvtAv1Enc|X\w+|dav1d|drm|opencore|opus|sharpyuv|vpl|vpx|webp\w*|xcb\w*|av\w+|sw\w+)$"
    )
    assert [file for file in sorted(files) if not free.match(file) and file not in names] == []
    assert f'"{library_meta["libavcodec"]["license"].strip()}"' in names
    encoders = {name for name in ("libx264", "libx265") if name in av.codecs_available}
    assert encoders == {name for name in ("libx264", "libx265") if name in files}


def test_what_opencv_carries() -> None:
    """Qt and FFmpeg, and nothing that its maintainers call not free."""
    import cv2

    text = cv2.getBuildInformation()
    assert re.search(r"Non-free algorithms:\s+NO", text)
    inside = [row[1] for row in rows("Libraries inside wheels") if row[0].startswith("opencv")]
    assert ("QT5" in text) == ("Qt 5" in inside)
    assert bool(re.search(r"FFMPEG:\s+YES", text)) == any("FFmpeg" in name for name in inside)
