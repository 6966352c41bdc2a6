"""The alignment contract: event time alone decides what is in a hop."""

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamulag.streamer.core.aligner import FURTHEST, Aligner, Hop
from tamulag.streamer.core.sample import PERIOD, TICK_RATE, Block, Sample

DIMS = {"audio": 2, "vision": 3}
LATENESS = 0.3


def audio(tick: int, value: float | None = 1.0) -> Sample:
    values = None if value is None else np.full(2, value, np.float32)
    return Sample("audio", tick / 50, values, "silence" if value is None else None)


def vision(time: float, value: float | None = 1.0) -> Sample:
    values = None if value is None else np.full(3, value, np.float32)
    return Sample("vision", time, values, "no_face" if value is None else None)


def aligner(hop: int = 25) -> Aligner:
    return Aligner(DIMS, hop=hop, lateness=LATENESS)


def run(samples: Iterable[Sample]) -> list[Hop]:
    core = aligner()
    hops = [hop for sample in samples for hop in core.push(sample)]
    return hops + core.close()


def same(first: list[Hop], second: list[Hop]) -> bool:
    return [h.end for h in first] == [h.end for h in second] and all(
        np.array_equal(a.grids[n].values, b.grids[n].values)
        and np.array_equal(a.grids[n].mask, b.grids[n].mask)
        and a.grids[n].reason == b.grids[n].reason
        and a.grids[n].seen == b.grids[n].seen
        for a, b in zip(first, second, strict=True)
        for n in DIMS
    )


def recording(seconds: float = 3.0) -> list[Sample]:
    sound = [audio(k, None if k % 7 == 3 else float(k)) for k in range(int(seconds * 50))]
    faces = [
        vision(0.037 + k * 0.1, None if k % 5 == 2 else float(k)) for k in range(int(seconds * 10))
    ]
    return sorted(sound + faces, key=lambda s: s.timestamp)


def shuffled(samples: list[Sample], delays: list[float]) -> list[Sample]:
    """Delay each sample a little, and keep the order within each modality."""
    clock = {"audio": 0.0, "vision": 0.0}
    arrivals = []
    for sample, delay in zip(samples, delays, strict=True):
        # Half of lateness for each side: no modality runs ahead by more than lateness.
        clock[sample.modality] = max(clock[sample.modality], sample.timestamp + delay)
        arrivals.append((clock[sample.modality], sample))
    return [sample for _, sample in sorted(arrivals, key=lambda item: item[0])]


@given(st.data())
def test_any_arrival_order_within_lateness_gives_identical_hops(data: st.DataObject) -> None:
    """Interleaving and delays below lateness change nothing, not even a reason."""
    samples = recording()
    delay = st.floats(0, LATENESS - 0.12)  # a slot's sample comes when the slot is over
    delays = data.draw(st.lists(delay, min_size=len(samples), max_size=len(samples)))
    assert same(run(shuffled(samples, delays)), run(samples))


@given(
    st.dictionaries(st.integers(0, 29), st.floats(0, 0.0999), min_size=1),
    st.sampled_from([5, 10, 25, 50]),
)
def test_each_frame_belongs_to_exactly_one_hop(times: dict[int, float], hop: int) -> None:
    """The frame of each 100 ms is found once, in its place."""
    core = Aligner({"vision": 3}, hop=hop, lateness=LATENESS)
    frames = [vision(slot / 10 + times[slot], float(slot)) for slot in sorted(times)]
    hops = [h for frame in frames for h in core.push(frame)] + core.close()
    seen = [v for h in hops for v in h.grids["vision"].values[h.grids["vision"].mask][:, 0]]
    assert seen == [float(slot) for slot in sorted(times)]


def test_a_later_frame_of_an_open_slot_replaces_the_earlier() -> None:
    """A source whose clock was set again may send two; the newest counts while its hop is open."""
    core = Aligner({"vision": 3}, hop=25, lateness=LATENESS)
    core.push(vision(0.01, 1.0))
    core.push(vision(0.02, 2.0))
    assert core.close()[0].grids["vision"].values[0, 0] == 2.0


@given(st.lists(st.sampled_from([5, 10, 25, 50]), min_size=1, max_size=8))
def test_hops_of_changing_length_leave_no_tick_out(lengths: list[int]) -> None:
    """Each tick is in one hop, whatever lengths are set on the way."""
    core = Aligner({"audio": 2}, hop=25, lateness=LATENESS)
    hops: list[Hop] = []
    for length in lengths:
        core.set_hop(length)
        start = core.end - core.hop
        hops += [h for k in range(start, start + length) for h in core.push(audio(k, float(k)))]
    ticks = np.concatenate([hop.grids["audio"].values[:, 0] for hop in hops])
    assert ticks.tolist() == list(range(sum(lengths)))


@pytest.mark.parametrize(("time", "end"), [(0.48, 25), (0.5, 50), (0.98, 50), (1.0, 75)])
def test_edges_belong_to_the_later_hop(time: float, end: int) -> None:
    """A tick at exactly the end of a hop is the first of the next one."""
    core = aligner()
    hops = core.push(audio(round(time * 50))) + core.close()
    first = next(h.end for h in hops if h.grids["audio"].mask.any())
    assert end - 25 < first <= end


@pytest.mark.parametrize("dead", ["audio", "vision"])
def test_a_dead_modality_costs_lateness_and_no_stall(dead: str) -> None:
    """Without one modality a hop closes when the other is `lateness` further."""
    core = aligner()
    for sample in recording():
        if sample.modality != dead and core.push(sample):
            period = 0.1 if dead == "audio" else 0.02
            over = (int(sample.timestamp / period + 1e-6) + 1) * period
            assert 0.5 + LATENESS - 1e-6 <= over <= 0.5 + LATENESS + period
            return
    pytest.fail("no hop closed")


def test_a_modality_that_starts_late_is_masked_until_then() -> None:
    """Hops before its first sample have an all-False mask."""
    samples = [s for s in recording() if s.modality == "audio" or s.timestamp > 1.5]
    present = [hop.grids["vision"].mask.any() for hop in run(samples)]
    assert present == [False, False, False, True, True, True]


def test_hop_closes_at_once_when_all_modalities_have_passed_it() -> None:
    """A modality that has arrived is not waited for."""
    core = aligner()
    for tick in range(25):
        core.push(audio(tick))
    assert core.push(vision(0.39)) == []
    assert [hop.end for hop in core.push(vision(0.41))] == [25]


def test_late_sample_is_dropped_and_counted() -> None:
    """What comes after its hop closed cannot change it."""
    core = aligner()
    core.push(audio(100))
    assert core.push(vision(0.1)) == []
    assert core.late == {"audio": 0, "vision": 1}


def test_advance_closes_hops_when_everything_is_silent() -> None:
    """With no sample at all the caller's clock moves the watermark."""
    assert [hop.end for hop in aligner().advance(1.31)] == [25, 50]


def test_close_flushes_the_unfinished_hop() -> None:
    """What was held comes out, and only then is there nothing left."""
    core = aligner()
    core.push(audio(30, 7.0))
    hops = core.close()
    assert [hop.end for hop in hops] == [25, 35]
    assert hops[1].grids["audio"].values[5, 0] == 7.0
    assert core.close() == []


def test_masked_ticks_keep_the_reason() -> None:
    """A hop has the reason why its newest sample had nothing to measure."""
    hops = run([*(audio(k) for k in range(24)), audio(24, None)])
    assert hops[0].grids["audio"].reason == "silence"
    assert hops[0].grids["audio"].mask.sum() == 24


@pytest.mark.parametrize("hop", [0, -5, 7])
def test_hop_must_hold_whole_vision_frames(hop: int) -> None:
    """The message names the value and what is allowed."""
    with pytest.raises(ValueError, match=f"hop of {hop} ticks: must be a positive multiple of 5"):
        aligner(hop)


def test_wrong_number_of_features_is_refused() -> None:
    """The message gives what came and what the model takes."""
    with pytest.raises(ValueError, match="audio sample of 3 features: the model takes 2"):
        aligner().push(Sample("audio", 0.0, np.zeros(3, np.float32)))


def blocked(samples: list[Sample], sizes: list[int]) -> list[Block]:
    """Return the samples of a modality in blocks of these sizes."""
    blocks, start = [], 0
    for size in sizes:
        part = samples[start : start + size]
        rows = [sample.values for sample in part if sample.values is not None]
        if rows:
            blocks.append(Block(part[0].modality, part[0].timestamp, np.stack(rows)))
        start += size
    return blocks


@given(st.lists(st.integers(1, 64), min_size=30, max_size=30))
def test_blocks_are_their_samples(sizes: list[int]) -> None:
    """Cut as they may be, rows that come together give the hops of samples one by one."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((sum(sizes), 2)).astype(np.float32)
    samples = [Sample("audio", tick / 50, values[tick]) for tick in range(len(values))]
    one, other = (Aligner({"audio": 2}, hop=25, lateness=0.3) for _ in range(2))
    alone = [hop for sample in samples for hop in one.push(sample)] + one.close()
    together = [hop for block in blocked(samples, sizes) for hop in other.push_block(block)]
    together += other.close()
    assert [hop.end for hop in together] == [hop.end for hop in alone]
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_array_equal(a.grids["audio"].values, b.grids["audio"].values)
        np.testing.assert_array_equal(a.grids["audio"].mask, b.grids["audio"].mask)
        assert a.grids["audio"].seen == pytest.approx(b.grids["audio"].seen)


def test_a_later_sample_replaces_a_row_of_a_block() -> None:
    """As it replaces a sample: the newest of a slot counts."""
    aligner = Aligner({"audio": 1}, hop=5, lateness=0.0)
    aligner.push_block(Block("audio", 0.0, np.zeros((4, 1), np.float32)))
    aligner.push(Sample("audio", 0.041, np.ones(1, np.float32)))
    (hop,) = aligner.push(Sample("audio", 0.08, np.zeros(1, np.float32)))
    assert hop.grids["audio"].values[:, 0].tolist() == [0, 0, 1, 0, 0]


def test_rows_of_a_block_that_are_late_are_counted() -> None:
    """Each of them; the others count."""
    aligner = Aligner({"audio": 1}, hop=5, lateness=0.0)
    aligner.push_block(Block("audio", 0.0, np.zeros((5, 1), np.float32)))
    hops = aligner.push_block(Block("audio", 0.04, np.ones((8, 1), np.float32)))
    assert aligner.late["audio"] == 3
    assert hops[0].grids["audio"].values[:, 0].tolist() == [1] * 5


@given(st.lists(st.tuples(st.booleans(), st.floats(-1e9, 1e9) | st.floats(-5, 200)), max_size=40))
def test_no_time_stamps_close_or_hold_more_than_a_minute(stamps: list[tuple[bool, float]]) -> None:
    """What one sample closes, and all that waits, is bounded; what is dropped is counted."""
    core = aligner()
    for taken, (is_sound, time) in enumerate(stamps, 1):
        hops = core.push(Sample("audio", time, None) if is_sound else vision(time))
        assert len(hops) <= FURTHEST / 0.5 + 2
        assert sum(map(len, core.held.values())) + sum(core.late.values()) <= taken
        for name, slots in core.held.items():
            assert all(slot * PERIOD[name] <= core.end + FURTHEST * TICK_RATE for slot in slots)
    assert len(core.close()) <= FURTHEST / 0.5 + 2


def test_blocks_far_ahead_are_counted() -> None:
    """A block of a minute too late in the stream closes nothing."""
    core = Aligner({"audio": 1}, hop=25, lateness=LATENESS)
    assert core.push_block(Block("audio", 500.0, np.zeros((4, 1), np.float32))) == []
    assert core.late["audio"] == 4
