"""Extract features of many media files: worker processes, and results that survive an abort.

Knows files, processes and `extract.play`. Knows no labels and no model.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tamulag.models.data.clips import DataError

from ..core.sample import Word
from ..core.source import SourceError, SourceLost
from ..features import audio, vision
from .extract import MediaFeatures, Speech, play, stack_inputs
from .file_workers import work_off

FORMAT = "tamulag-part-1"

MEASURED = ("audio", "vision")
"""Modalities that have feature rows; text has words."""

Engine = Literal["processes", "ray"]
"""Processes of this machine, or those of a Ray cluster."""


def extract_all(
    files: Sequence[Path],
    folder: Path,
    *,
    speech: Speech,
    workers: int | None,
    done: Callable[[Path, str | None], None],
    engine: Engine = "processes",
    ray: str | None = None,
) -> dict[Path, Path]:
    """Extract the features of files, each in one of several processes, and store the results.

    Results that `folder` already has of a file with the same path, size and modification time are
    not computed again. A file that cannot be read is reported and skipped.

    Args:
        files: Media files; duplicates are extract_on_ray once.
        folder: Folder of the results, a file each.
        speech: Recogniser of the words.
        workers: Files at a time, each in a process; 1 = in this one, None = one per core.
        done: Called for each finished file, with its problem or None.
        engine: Where they run; with `ray` None = one per core of the cluster.
        ray: HOST:PORT of a Ray cluster; None = a local Ray.

    Returns:
        The result of each readable file, for `load_features`.

    Raises:
        DataError: If a worker process dies, or Ray is missing; finished results remain.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[Path, Path] = {}
    todo: dict[Path, Path] = {}
    for file in dict.fromkeys(files):
        try:
            part = folder / f"{_name(file, speech)}.safetensors"
        except OSError as error:
            done(file, f"{file} cannot be read: {error.strerror}")
            continue
        if _is_usable(part):
            found[file] = part
            done(file, None)
        else:
            todo[file] = part
    if engine == "ray":
        worked = _on_ray(todo, speech, workers, ray)
    else:
        worked = _in_processes(todo, speech, min(workers or os.cpu_count() or 1, len(todo)))
    for file, problem in worked:
        if problem is None:
            found[file] = todo[file]
        done(file, problem)
    return found


def load_features(path: Path) -> MediaFeatures:
    """Read the stored result of one file.

    Raises:
        DataError: If it is damaged.
    """
    try:
        with safe_open(path, framework="np") as file:
            meta = json.loads(file.metadata()[FORMAT])
            names = [name for name in MEASURED if f"{name}.values" in file.keys()]  # noqa: SIM118
            values = {name: file.get_tensor(f"{name}.values") for name in names}
            ticks = {name: file.get_tensor(f"{name}.ticks") for name in names}
    except (SafetensorError, OSError, TypeError, LookupError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}): delete it and run again") from error
    words = tuple(tuple(Word(*word) for word in utterance) for utterance in meta["utterances"])
    return MediaFeatures(values, ticks, words, meta["length"])


def save_features(part: MediaFeatures, path: Path) -> None:
    """Write the result of one file, atomically."""
    tensors: dict[str, npt.NDArray[np.generic]] = {}
    tensors |= {f"{name}.values": values for name, values in part.values.items()}
    tensors |= {f"{name}.ticks": ticks for name, ticks in part.ticks.items()}
    utterances = [[(w.text, w.start, w.end) for w in words] for words in part.utterances]
    meta = {FORMAT: json.dumps({"utterances": utterances, "length": part.length})}
    temporary = path.with_suffix(".partial")
    save_file(tensors, temporary, metadata=meta)
    temporary.replace(path)


def _name(file: Path, speech: Speech) -> str:
    state = file.stat()
    place = (str(file.resolve()), state.st_size, state.st_mtime_ns)
    # With the features' names, so that results of other extractors are not reused.
    key = (FORMAT, audio.FEATURE_NAMES, vision.FEATURE_NAMES, speech, place)
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]


def _is_usable(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        load_features(path)
    except DataError:
        return False
    return True


def _in_processes(
    todo: dict[Path, Path], speech: Speech, workers: int
) -> Iterator[tuple[Path, str | None]]:
    """Yield each finished file, with its problem or None."""
    if workers <= 1:
        yield from ((file, _extract(file, part, speech)) for file, part in todo.items())
        return
    files = list(todo)
    jobs = [(file, todo[file], speech) for file in files]
    for number, problem in work_off(_extract, jobs, workers):
        yield files[number], problem


def _on_ray(
    todo: dict[Path, Path], speech: Speech, workers: int | None, address: str | None
) -> Iterator[tuple[Path, str | None]]:
    """Yield as `_in_processes`; results are written here: nodes need not share the folder."""
    if not todo:
        return
    from .extract_ray import extract_on_ray

    for file, found in extract_on_ray(list(todo), speech, workers=workers, address=address):
        if isinstance(found, MediaFeatures):
            save_features(found, todo[file])
            yield file, None
        else:
            yield file, found


def _extract(file: Path, part: Path, speech: Speech) -> str | None:
    try:
        found = play(file, speech)
    except (SourceError, SourceLost) as error:
        return str(error)
    save_features(stack_inputs(found), part)
    return None
