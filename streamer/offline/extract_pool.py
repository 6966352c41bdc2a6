"""The front end over many media files: worker processes, and results that outlive a stop.

Knows files, processes and `extract.play`. Knows no labels and no model.
"""

import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
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
from .extract import Part, Speech, part_of, play

FORMAT = "tamulag-part-1"

MODALITIES = ("audio", "vision")

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
    """Run the front end over files, each in one of several processes, and keep what it finds.

    What `folder` already holds of a file with the same path, size and time of change is not
    computed again. A file that cannot be read is told and left out.

    Args:
        files: Media files; one that is named twice is played once.
        folder: Where the results are kept, a file each.
        speech: Who recognises words.
        workers: Files at a time, each in a process; 1 = in this one, None = one per core.
        done: Called for each file that is finished, with what is wrong with it or None.
        engine: What runs them; with `ray` None = one per core of the cluster.
        ray: HOST:PORT of a Ray cluster; None = a Ray of this machine alone.

    Returns:
        The result of each file that could be read, for `load_part`.

    Raises:
        DataError: If a worker process dies, or Ray is not there; what is done stays done.
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
        worked = _worked_on_ray(todo, speech, workers, ray)
    else:
        worked = _worked(todo, speech, min(workers or os.cpu_count() or 1, len(todo)))
    for file, problem in worked:
        if problem is None:
            found[file] = todo[file]
        done(file, problem)
    return found


def load_part(path: Path) -> Part:
    """Read what `collect` kept of one file.

    Raises:
        DataError: If it is damaged.
    """
    try:
        with safe_open(path, framework="np") as file:
            meta = json.loads(file.metadata()[FORMAT])
            names = [name for name in MODALITIES if f"{name}.values" in file.keys()]  # noqa: SIM118
            values = {name: file.get_tensor(f"{name}.values") for name in names}
            ticks = {name: file.get_tensor(f"{name}.ticks") for name in names}
    except (SafetensorError, OSError, TypeError, LookupError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}): delete it and run again") from error
    words = tuple(tuple(Word(*word) for word in utterance) for utterance in meta["utterances"])
    return Part(values, ticks, words, meta["length"])


def save_part(part: Part, path: Path) -> None:
    """Write what the front end found in one file, atomically."""
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
    # With the features' names, so that parts of another front end are made anew.
    key = (FORMAT, audio.FEATURE_NAMES, vision.FEATURE_NAMES, speech, place)
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]


def _is_usable(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        load_part(path)
    except DataError:
        return False
    return True


def _worked(
    todo: dict[Path, Path], speech: Speech, workers: int
) -> Iterator[tuple[Path, str | None]]:
    """Yield each file when it is finished, with what is wrong with it or None."""
    if workers <= 1:
        yield from ((file, _work(file, part, speech)) for file, part in todo.items())
        return
    # Spawned, not forked: a fork would copy the threads' locks of mediapipe and torch.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin) as pool:
        futures = {pool.submit(_work, file, part, speech): file for file, part in todo.items()}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise DataError(
                "a worker process died, perhaps for want of memory: run the command again, "
                "it goes on where it was; fewer --workers need less"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _worked_on_ray(
    todo: dict[Path, Path], speech: Speech, workers: int | None, address: str | None
) -> Iterator[tuple[Path, str | None]]:
    """Yield as `_worked`; the parts are written here, so that nodes need not share their folder."""
    if not todo:
        return
    from .extract_ray import played

    for file, found in played(list(todo), speech, workers=workers, address=address):
        if isinstance(found, Part):
            save_part(found, todo[file])
            yield file, None
        else:
            yield file, found


def _work(file: Path, part: Path, speech: Speech) -> str | None:
    try:
        found = play(file, speech)
    except (SourceError, SourceLost) as error:
        return str(error)
    save_part(part_of(found), part)
    return None


def _begin() -> None:
    """Prepare a worker: one thread; it ends with its parent, and not by Ctrl-C before it."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
