"""One clip for an hour: loops, phases, and drift that is there and is found."""

from dataclasses import replace

import numpy as np
import pytest

from tamulag.models import TamUlag
from tamulag.models.runtime.checkpoint import Card
from tamulag.models.runtime.torch_engine import TorchEngine
from tamulag.streamer.bench.drift import Loop, drifts, loop_of, stream
from tamulag.streamer.core.estimate import Estimate, ModalityEstimate, Timing
from tamulag.streamer.core.sample import Sample
from tamulag.streamer.core.session import Session
from tamulag.streamer.core.source import SourceError

TIMING = Timing(window=2.0, missing_after={"text": 2.0, "audio": 1.5, "vision": 1.0})
CARD = Card(trained=dict.fromkeys(("sentiment", "text", "audio", "vision"), True))


def clip(seconds: float) -> list[Sample]:
    """Return random sound of the size that the small model takes."""
    rows = np.random.default_rng(1).standard_normal((round(seconds * 50), 4)).astype(np.float32)
    return [Sample("audio", k / 50, row) for k, row in enumerate(rows)]


def scored(scores: np.ndarray) -> list[Estimate]:
    """Return estimates of hops of 0.5 s in which voice alone is scored, nan = missing."""
    off = ModalityEstimate(None, 0.0, "off")
    rest = {"text": off, "vision": off}
    empty = Estimate(0.0, 0.0, False, None, None, {}, None, {}, 0)
    return [
        replace(
            empty,
            end=0.5 * (k + 1),
            modalities=rest
            | {"audio": ModalityEstimate(None if np.isnan(s) else float(s), 1.0, "ok")},
        )
        for k, s in enumerate(scores)
    ]


def test_loop_is_cut_to_whole_hops() -> None:
    """A seam inside a hop would put each repetition at another phase."""
    loop = loop_of(clip(3.3), 0.5)
    assert loop.period == 3.0
    assert max(sample.timestamp for sample in loop.samples) < 3.0


def test_a_clip_without_a_hop_is_refused() -> None:
    """The error says how long it is."""
    with pytest.raises(SourceError, match=r"0\.38 s holds no hop of 0\.5 s"):
        loop_of(clip(0.4), 0.5)


def test_stream_is_the_clip_repeated(model: TamUlag) -> None:
    """The same numbers as one long recording of the repeated clip."""
    loop = loop_of(clip(1.6), 0.5)
    again = [
        replace(sample, timestamp=sample.timestamp + 1.5 * turn)
        for turn in range(4)
        for sample in loop.samples
    ]
    whole = Session(TorchEngine(model), CARD, ("audio",), TIMING)
    wanted = [e for sample in again for e in whole.push(sample)] + whole.close(6.0)
    done: list[int] = []
    found = stream(Session(TorchEngine(model), CARD, ("audio",), TIMING), loop, 5.9, done.append)
    assert [e.sentiment for e in found] == [e.sentiment for e in wanted]
    assert done[-1] == 6


def test_a_periodic_score_does_not_drift() -> None:
    """A score that depends on the phase alone has distance 0, whatever the period."""
    (found,) = drifts(scored(np.tile([0.1, 0.9, -2.0, 1.0, 0.5], 100)), 2.5, TIMING)
    assert (found.modality, found.mean, found.largest) == ("audio", 0.0, 0.0)
    assert found.hops == 120 - 3


def test_drift_is_measured() -> None:
    """A score that rises by 0.001 per hop has risen by the number of hops in between."""
    (found,) = drifts(scored(np.arange(500) * 1e-3), 2.5, TIMING)
    assert found.mean == pytest.approx(0.38)
    assert found.last_minute - found.first_minute == pytest.approx(0.38)


def test_hops_without_a_score_are_left_out() -> None:
    """A gap in the clip is one in every minute."""
    (found,) = drifts(scored(np.tile([0.1, np.nan, -2.0, 1.0, 0.5], 100)), 2.5, TIMING)
    assert found.mean == 0
    assert found.hops == 117 - 24 + 1


def test_an_hour_of_the_small_model(model: TamUlag) -> None:
    """Streaming really goes through a session: the first window differs, later ones agree."""
    loop = Loop(clip(2.0), 2.0)
    estimates = stream(
        Session(TorchEngine(model), CARD, ("audio",), TIMING), loop, 200.0, lambda _: None
    )
    assert [d.modality for d in drifts(estimates, 2.0, TIMING)] == ["audio", "sentiment"]
    assert all(d.mean < 0.1 for d in drifts(estimates, 2.0, TIMING))
