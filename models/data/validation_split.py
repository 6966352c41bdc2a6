"""Which clips are only validated, and which make a fold of a cross-validation: decided by groups.

Knows files, clips and the groups, corpora or modes that they are of. Knows no tensor and no model.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .clips import Clip, DataError, read_clips

BLOCK = 60
"""Clips that stay together where one group is halved."""
NAMED = 12
"""Groups that a line names; of more it gives the number."""


def split_clips(
    train: Sequence[Path],
    valid: Sequence[Path],
    groups: Collection[str] = (),
    *,
    share: float | None = None,
    seed: int = 1,
    log: Callable[[str], None] | None = None,
) -> dict[str, list[Clip]]:
    """Read feature files and return the clips of `train` and of `valid`.

    With `groups` these are only validated. Without them, and where both lists have the same files,
    a share of the groups is drawn; of the clips, where all are of one group. Files that differ are
    taken as they are.

    Args:
        train: Feature files.
        valid: Feature files; each file is read once.
        groups: Speakers or videos that are only validated.
        share: Of the groups to draw; None: files must differ, or `groups` be given.
        seed: Draws them.
        log: Called with a line that names what was drawn.

    Raises:
        DataError: If a file cannot be used, `groups` names no clip, a file is in both lists without
            a rule that splits it, or nothing is left to train on.
    """
    files = {path.resolve(): path for path in (*train, *valid)}
    clips = {key: read_clips(path) for key, path in files.items()}
    ours, theirs = ([c for path in part for c in clips[path.resolve()]] for part in (train, valid))
    if groups:
        return _by_groups(ours, theirs, set(groups), train, valid)
    if share is None:
        refuse_shared(train, valid, "valid_groups, the groups that are only validated")
    both = set(map(Path.resolve, train)) & set(map(Path.resolve, valid))
    if not both:
        return {"train": ours, "valid": theirs}
    if len(both) < len(files):
        raise DataError(
            f"data.train and data.valid share {_files(sorted(both))} but are not the same list: "
            "give the same files to both, or valid_groups"
        )
    return _drawn(ours, train, share or 0.0, seed, log)


def refuse_shared(
    train: Sequence[Path],
    valid: Sequence[Path],
    remedy: str,
    is_split: Callable[[Path], bool] | None = None,
) -> None:
    """Refuse a file that is trained on and validated, unless its rows are split by themselves.

    Raises:
        DataError: If there is one.
    """
    seen = {path.resolve() for path in train}
    shared = [p for p in valid if p.resolve() in seen and not (is_split and is_split(p))]
    if shared:
        raise DataError(
            f"{_files(shared)} is given to train on and as valid: give two files, or {remedy}"
        )


def folds(keys: Collection[str], count: int) -> list[list[str]]:
    """Split distinct groups or corpora in their order into `count` runs of nearly equal length.

    As many folds as there are keys leave one out each.

    Raises:
        DataError: If there are fewer keys than folds.
    """
    names = sorted(set(keys))
    if len(names) < count:
        raise DataError(f"folds = {count}: there are {len(names)} groups, so at most that many")
    return [list(part) for part in np.array_split(np.array(names), count)]


def quarters(groups: Sequence[str], corpora: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return for each clip, (N,), which of four parts it is in, 0 to 3; no group is in two.

    Of each corpus four groups of nearly equal size are spread over the parts by chance, which falls
    the same for the same groups. A corpus of a single group is cut into blocks of clips.

    Args:
        groups: Speaker or video of each clip.
        corpora: Corpus of each clip.
    """
    out = np.zeros(len(groups), np.int64)
    rng = np.random.default_rng(1)
    for corpus in sorted(set(corpora)):
        here = [place for place, one in enumerate(corpora) if one == corpus]
        counts = Counter(groups[place] for place in here)
        if len(counts) == 1:
            out[here] = np.arange(len(here)) // max(1, min(BLOCK, len(here) // 4)) % 4
            continue
        # Sorted by name too, so that only the seed and the names decide.
        ordered = sorted(counts, key=lambda group: (counts[group], group))
        drawn = np.concatenate([_spread(rng) for _ in range(-(-len(ordered) // 4))])
        part = dict(zip(ordered, drawn.tolist(), strict=False))
        out[here] = [part[groups[place]] for place in here]
    return out


def _spread(rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return the four parts in an order of which neighbours are of different halves."""
    halves = rng.permuted(np.array([[0, 1], [2, 3]]), axis=1)
    return rng.permutation(halves).T.ravel()


def _by_groups(
    train: list[Clip],
    valid: list[Clip],
    groups: set[str],
    train_files: Sequence[Path],
    valid_files: Sequence[Path],
) -> dict[str, list[Clip]]:
    found = {clip.group for clip in valid}
    if groups - found:
        raise DataError(
            f"valid_groups {_named(groups - found)} names no clip of {_files(valid_files)}; "
            f"it has: {_named(found)}"
        )
    left = [clip for clip in train if clip.group not in groups]
    if not left:
        raise DataError(f"valid_groups {_named(groups)} names every clip of {_files(train_files)}")
    return {"train": left, "valid": [clip for clip in valid if clip.group in groups]}


def _drawn(
    clips: list[Clip],
    files: Sequence[Path],
    share: float,
    seed: int,
    log: Callable[[str], None] | None,
) -> dict[str, list[Clip]]:
    groups = sorted({clip.group for clip in clips})
    by_group = len(groups) > 1
    keys = [clip.group if by_group else str(place) for place, clip in enumerate(clips)]
    names = groups if by_group else keys
    if len(names) < 2:
        raise DataError(f"{_files(files)} has {len(clips)} clips: 2 or more are needed")
    count = min(max(1, round(share * len(names))), len(names) - 1)
    chosen = set(np.random.default_rng(seed).permutation(names)[:count].tolist())
    parts: dict[str, list[Clip]] = {"train": [], "valid": []}
    for key, clip in zip(keys, clips, strict=True):
        parts["valid" if key in chosen else "train"].append(clip)
    what = f"{count} of {len(names)} groups ({_named(chosen)})" if by_group else "of the only group"
    if log is not None:
        log(
            f"validated only: {len(parts['valid'])} of {len(clips)} clips, {what}; "
            f"valid_share {share:g}, valid_seed {seed}"
        )
    return parts


def _files(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))


def _named(groups: set[str]) -> str:
    names = sorted(groups)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
