"""Unimodal labels from what similar clips of other groups say, out of fold (ULAG).

Training only, and made once, before the first epoch. Knows vectors, labels and groups of clips.
Knows no model, no loss and no file.

A modality's label is the clip's label y, moved towards what the modality alone says of it:

    k_i = sum_j softmax_j(cos(x_i, x_j) / T) y_j      over the clips j of other groups
    l_i = ridge regression of y on x                  fitted on the folds that i's group is not in
    q   = z(z(k) + z(l))                              z: less its mean, over its deviation
    r^2 = max(0, rho^2 - (1 - rho^2) / (G - 2))       rho = Corr(q, y), G groups; r = 0: rho <= 0
    a   = min(r, 1/2)
    m   = (1 - a) z(y) + a r q
    u   = mean(y) + sqrt(1 - a^2) sd(y) m / sd(m)     cut to [-H, H]

No clip's own label, nor that of its group, enters k and l, so q cannot copy y: this is what the
form of the release lacks. `a` is as large as the features predict labels of people whom they have
not seen, and a half at most: where they say nothing, u = y. A label gives up a^2 of its variance,
at most a quarter, so nothing can collapse. It is not bounded by |y|, and neutral clips may move.

Shapes: N clips that have the modality, C clips of the training set, M = 3 modalities (text, audio,
vision), D values of a pooled vector.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..data.clips import DataError
from ..data.corpus import Corpus
from ..nn.constants import MODALITIES

TEMPERATURE = 0.1
"""T. Cosines of standardised vectors are 0 on average, whatever the encoder."""
STRENGTH = 3.0
"""Of the ridge's penalty, in variances of a value."""
FOLDS = 10
MOST = 0.5
"""Largest a: no modality outvotes the clip's label."""
CHUNK = 1024
"""Clips whose similarities are held at once."""

Numbers = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


class Generated(NamedTuple):
    """Labels of one modality."""

    label: Numbers
    """(N,)."""
    power: float
    """r: how well the modality's vectors predict labels out of fold."""
    amount: float
    """a: how far the labels were moved; 0 = they are the clips'."""


class UlagLabels(NamedTuple):
    """Labels of all modalities."""

    label: Tensor
    """(C, M) float32; where a modality is absent, the clip's."""
    power: dict[str, float]
    """r of each modality that occurs."""


def pooled_vectors(corpus: Corpus) -> dict[str, tuple[Tensor, Tensor]]:
    """Return of each modality one vector per clip that has it, and the places of these clips.

    The vector is the mean over the clip's steps, and of voice and face the deviation too. A text
    encoder that is trained along has no states yet: tokens are left out.

    Args:
        corpus: C clips.

    Returns:
        By modality (N, D) float32 and (N,) int64.
    """
    out = {}
    for name, clips in corpus.values.items():
        places = [place for place, steps in enumerate(clips) if len(steps)]
        rows = [pooled(clips[place], deviation=name != "text") for place in places]
        if rows:
            out[name] = torch.stack(rows), torch.tensor(places)
    return out


def pooled(steps_TD: Tensor, *, deviation: bool) -> Tensor:
    """Return the mean over at least one step (D,), or mean and deviation (2 D,)."""
    mean = steps_TD.mean(dim=0)
    return torch.cat([mean, steps_TD.std(dim=0, correction=0)]) if deviation else mean


def ulag_labels(
    vectors: Mapping[str, tuple[Tensor, Tensor]],
    label_C: Tensor,
    groups: Sequence[str],
    *,
    seed: int,
    limit: float,
) -> UlagLabels:
    """Make the unimodal labels of a training set.

    Args:
        vectors: Of each modality pooled vectors and places, see `pooled_vectors`.
        label_C: The clips' labels, float32.
        groups: C speakers or videos.
        seed: Draws the folds of the ridge.
        limit: H, the end of the labels' range.

    Raises:
        DataError: If all clips are of one group: nobody else is there to be asked.
    """
    if len(set(groups)) < 2:
        raise DataError(
            f'labels = "ulag": {len(groups)} clips of {len(set(groups))} group: it needs two or '
            'more speakers or videos; give them groups, or set model.labels = "none"'
        )
    codes = np.unique(np.array(groups), return_inverse=True)[1]
    label_CM = label_C.unsqueeze(-1).repeat(1, len(MODALITIES))
    power = {}
    for column, name in enumerate(MODALITIES):
        if name not in vectors:
            continue
        x_ND, places = vectors[name]
        whole = label_C[places].double().numpy()
        made = generate(x_ND.double().numpy(), whole, codes[places.numpy()], seed=seed, limit=limit)
        label_CM[places, column] = torch.from_numpy(made.label).float()
        power[name] = made.power
    return UlagLabels(label_CM, power)


def generate(
    x_ND: Numbers, label_N: Numbers, group_N: Places, *, seed: int, limit: float
) -> Generated:
    """Make the labels of one modality; those of fewer than four groups are the clips'.

    Args:
        x_ND: One vector per clip.
        label_N: The clips' labels, y.
        group_N: Code of each clip's speaker or video.
        seed: Draws the folds of the ridge.
        limit: H.
    """
    groups = len(np.unique(group_N))
    if groups < 4 or np.ptp(label_N) < 1e-6:
        return Generated(label_N, 0.0, 0.0)
    kernel, line = out_of_fold(x_ND, label_N, group_N, seed=seed)
    said = standard(standard(kernel) + standard(line))
    power = predictive_power(said, label_N, groups)
    amount = min(power, MOST)
    if not amount:
        return Generated(label_N, 0.0, 0.0)
    mixed = (1 - amount) * standard(label_N) + amount * power * said
    scale = np.sqrt(1 - amount**2) * label_N.std() / mixed.std()
    return Generated((label_N.mean() + scale * mixed).clip(-limit, limit), power, amount)


def out_of_fold(
    x_ND: Numbers, label_N: Numbers, group_N: Places, *, seed: int
) -> tuple[Numbers, Numbers]:
    """Return what others' labels say of each clip: k and l (N,), by similarity and by ridge.

    Neither k_i nor l_i depends on a label of the group of i.
    """
    deviation = x_ND.std(axis=0)
    kept = deviation > 1e-6
    x_ND = (x_ND[:, kept] - x_ND[:, kept].mean(axis=0)) / deviation[kept]
    return _by_similarity(x_ND, label_N, group_N), _by_ridge(x_ND, label_N, group_N, seed)


def predictive_power(said_N: Numbers, label_N: Numbers, groups: int) -> float:
    """Return r: the correlation less what chance gives with so few groups; 0 if none is left."""
    found = float(np.mean(standard(said_N) * standard(label_N)))
    if found <= 0 or groups <= 2:
        return 0.0
    return float(np.sqrt(max(0.0, found**2 - (1 - found**2) / (groups - 2))))


def standard(values: Numbers) -> Numbers:
    """Return values less their mean, over their deviation; zeros where they do not vary."""
    deviation = values.std()
    centred: Numbers = values - values.mean()
    return centred / deviation if deviation > 1e-9 else 0 * centred


def _by_similarity(x_ND: Numbers, label_N: Numbers, group_N: Places) -> Numbers:
    length = np.linalg.norm(x_ND, axis=1, keepdims=True).clip(min=1e-9)
    unit = (x_ND / length).astype(np.float32)
    out = np.zeros(len(label_N))
    for begin in range(0, len(unit), CHUNK):
        rows = slice(begin, begin + CHUNK)
        score = unit[rows] @ unit.T / TEMPERATURE
        score[group_N[rows, None] == group_N[None]] = -np.inf
        weight = np.exp(score - score.max(axis=1, keepdims=True))
        out[rows] = weight @ label_N / weight.sum(axis=1)
    return out


def _by_ridge(x_ND: Numbers, label_N: Numbers, group_N: Places, seed: int) -> Numbers:
    """Fit on all folds but one; sums of all clips less those of the fold are the others' sums."""
    codes = np.unique(group_N, return_inverse=True)[1]
    count = codes.max() + 1
    order = np.random.default_rng(seed).permutation(count)
    fold_N = (order % min(FOLDS, count))[codes]
    gram, sums, product, total = x_ND.T @ x_ND, x_ND.sum(axis=0), x_ND.T @ label_N, label_N.sum()
    out = np.zeros(len(label_N))
    for fold in range(min(FOLDS, count)):
        here = fold_N == fold
        x, y, left = x_ND[here], label_N[here], int((~here).sum())
        centre, level = (sums - x.sum(axis=0)) / left, (total - y.sum()) / left
        square = (gram - x.T @ x) / left - np.outer(centre, centre)
        cross = (product - x.T @ y) / left - centre * level
        weight = np.linalg.solve(square + STRENGTH * np.eye(len(centre)), cross)
        out[here] = (x - centre) @ weight + level
    return out
