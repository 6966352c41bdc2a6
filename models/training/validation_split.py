"""Which clips of feature files are only validated.

Knows clips, their groups and the table [data] of a training file. Knows no model.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data.clips import Clip, DataError, read_clips
from .joint_recipe import DataTable
from .run_folder import Log

NAMED = 12
"""Groups that a line names; of more it tells the number."""


def split_clips(data: DataTable, log: Log) -> dict[str, list[Clip]]:
    """Read feature files and return the clips of `train` and of `valid`.

    With `valid_groups` these groups are only validated. Without them, and where both lists have the
    same files, a share of the groups is drawn by `valid_seed`; of the clips, where all are of one
    group. Files that differ are taken as they are.

    Args:
        data: Of a training file, with feature files.
        log: Told what was drawn.

    Raises:
        DataError: If a file cannot be used, `valid_groups` names no clip, or nothing is left to
            train on.
    """
    train = [clip for file in data.train for clip in read_clips(file)]
    if data.valid_groups:
        return _by_groups(train, [clip for file in data.valid for clip in read_clips(file)], data)
    train_files, valid_files = (
        {file.resolve() for file in part} for part in (data.train, data.valid)
    )
    both = train_files & valid_files
    if not both:
        return {"train": train, "valid": [c for file in data.valid for c in read_clips(file)]}
    if train_files != valid_files:
        raise DataError(
            f"data.train and data.valid share {_files(sorted(both))} but are not the same list: "
            "give the same files to both, or valid_groups"
        )
    return _drawn(train, data, log)


def _by_groups(train: list[Clip], valid: list[Clip], data: DataTable) -> dict[str, list[Clip]]:
    held, there = set(data.valid_groups), {clip.group for clip in valid}
    if held - there:
        raise DataError(
            f"valid_groups {_named(held - there)} names no clip of {_files(data.valid)}; "
            f"it has: {_named(there)}"
        )
    kept = [clip for clip in train if clip.group not in held]
    if not kept:
        raise DataError(f"valid_groups {_named(held)} names every clip of {_files(data.train)}")
    return {"train": kept, "valid": [clip for clip in valid if clip.group in held]}


def _drawn(clips: list[Clip], data: DataTable, log: Log) -> dict[str, list[Clip]]:
    groups = sorted({clip.group for clip in clips})
    by_group = len(groups) > 1
    keys = [clip.group if by_group else str(place) for place, clip in enumerate(clips)]
    names = groups if by_group else keys
    if len(names) < 2:
        raise DataError(f"{_files(data.train)} has {len(clips)} clips: 2 or more are needed")
    count = min(max(1, round(data.valid_share * len(names))), len(names) - 1)
    held = set(np.random.default_rng(data.valid_seed).permutation(names)[:count].tolist())
    parts: dict[str, list[Clip]] = {"train": [], "valid": []}
    for key, clip in zip(keys, clips, strict=True):
        parts["valid" if key in held else "train"].append(clip)
    what = f"{count} of {len(names)} groups ({_named(held)})" if by_group else "of the only group"
    log(
        f"validated only: {len(parts['valid'])} of {len(clips)} clips, {what}; "
        f"valid_share {data.valid_share:g}, valid_seed {data.valid_seed}"
    )
    return parts


def _files(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))


def _named(groups: set[str]) -> str:
    names = sorted(groups)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
