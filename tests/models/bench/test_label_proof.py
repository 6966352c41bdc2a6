"""The gain over copies and the heads: who is trained on what, and measured on what."""

from dataclasses import replace

import numpy as np

from support.human_clips import clips
from support.learnable_data import quiet
from tamulag.models.bench.label_proof import gain_of, prove


def test_gain_of_known_labels() -> None:
    """Truth over noise: Corr up, MAE down, surely; over itself nothing."""
    rng = np.random.default_rng(1)
    truth, noise = rng.standard_normal((2, 200))
    groups = [f"v{place % 20}" for place in range(200)]
    gain = gain_of([truth], [truth + noise], truth, groups)
    assert gain["Corr"].low > 0.1
    assert gain["MAE"].high < -0.5
    assert gain["MAE"].value == -float(np.abs(noise).mean())
    none = gain_of([noise], [noise], truth, groups)
    assert none["Corr"] == (0, 0, 0)


def test_heads_are_trained_on_what_they_say() -> None:
    """Human labels move the head of human labels alone; each target has its rows."""
    train, valid = clips(1, count=120), clips(2, count=80)
    wrong = [replace(c, unimodal={n: -label for n, label in c.unimodal.items()}) for c in train]
    right, other = (prove(some, valid, [1, 2], quiet, epochs=2) for some in (train, wrong))
    rows = [{(h.trained_on, h.measured_on): h.figures for h in p.heads} for p in (right, other)]
    assert list(rows[0]) == [
        (name, what) for what in ("text", "clip") for name in ("copied", "ulag", "human")
    ]
    for what in ("text", "clip"):
        assert rows[0]["ulag", what] == rows[1]["ulag", what]
        assert rows[0]["copied", what] == rows[1]["copied", what]
    assert rows[0]["human", "text"]["Corr"] > 0.9
    assert rows[1]["human", "text"]["Corr"] < 0
    for one, two in zip(right.joint, other.joint, strict=True):
        assert one.figures["fused MAE"] == two.figures["fused MAE"]
    assert [row.labels for row in right.joint] == ["none", "ulag"]
    assert right.joint[0].figures["MAE"] != right.joint[1].figures["MAE"]
    assert right.gain["Corr"].low > 0
    assert right.gain["MAE"].high < 0
