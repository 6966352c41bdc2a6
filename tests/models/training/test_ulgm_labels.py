"""Labels from class centres: running sums, momentum, bounds, and a state that can be stored."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tamulag.models.training.ulgm_labels import Centres, Ulgm, momentum, sides_of, ulgm_label

SIZES = (4, 3, 2, 3)
CLIPS = 12
LABEL = torch.tensor([-3, -2.2, -1, -0.4, 0, 0, 0.2, 0.8, 1.4, 2, 2.6, 3])


def four(batch: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, size, generator=generator) for size in SIZES]


def everyone(batch: int) -> Tensor:
    return torch.ones(batch, 3, dtype=torch.bool)


def epoch_of(ulgm: Ulgm, epoch: int, *, size: int = 5) -> Tensor:
    """Go once through all clips in batches; return the labels (C, M) in the clips' order."""
    order = torch.randperm(CLIPS, generator=torch.Generator().manual_seed(epoch))
    out = torch.zeros(CLIPS, 3)
    for number, rows in enumerate(order.split(size)):
        out[rows] = ulgm.update(
            rows, four(len(rows), 100 * epoch + number), everyone(len(rows)), epoch
        )
    return out


def recomputed(memory: Centres, *, zero: bool) -> tuple[Tensor, Tensor]:
    """Return sums and counts from the whole bank."""
    sides = sides_of(memory.labels, zero=zero) & memory.seen
    return sides.double() @ memory.features.double(), sides.sum(dim=1)


batches = st.lists(
    st.tuples(
        st.sets(st.integers(0, CLIPS - 1), min_size=1, max_size=CLIPS),
        st.integers(0, 2**32 - 1),
        st.integers(1, 9),
    ),
    max_size=8,
)


@given(batches, st.booleans())
@settings(max_examples=40)
def test_running_sums_equal_a_full_recomputation(
    steps: list[tuple[set[int], int, int]], zero: bool
) -> None:
    """Whatever batches come, with modalities absent and labels that change their sign."""
    ulgm = Ulgm(LABEL, SIZES, zero=zero)
    for chosen, seed, epoch in steps:
        rows = torch.tensor(sorted(chosen))
        generator = torch.Generator().manual_seed(seed)
        present = torch.rand(len(rows), 3, generator=generator) > 0.3
        ulgm.update(rows, four(len(rows), seed), present, epoch)
    for memory in ulgm.four:
        sums, counts = recomputed(memory, zero=zero)
        torch.testing.assert_close(memory.sums, sums, atol=1e-9, rtol=0)
        assert torch.equal(memory.counts, counts)


def test_labels_of_the_first_epoch_are_the_multimodal_ones() -> None:
    """There is nothing yet to judge by."""
    assert torch.equal(epoch_of(Ulgm(LABEL, SIZES), 1), LABEL.unsqueeze(-1).expand(CLIPS, 3))


def test_later_labels_differ_and_keep_their_bounds() -> None:
    """Every label lies in [-H, H]."""
    ulgm = Ulgm(LABEL / 3, SIZES, limit=1.0)
    for epoch in range(1, 6):
        labels = epoch_of(ulgm, epoch)
        assert labels.abs().max() <= 1
    assert not torch.equal(labels, (LABEL / 3).unsqueeze(-1).expand(CLIPS, 3))


def test_label_of_the_second_epoch_follows_the_equations() -> None:
    """Centres, advantages, the two forms, the clamp and the momentum, written out."""
    ulgm, rows = Ulgm(LABEL, SIZES), torch.arange(CLIPS)
    first, second = four(CLIPS, 1), four(CLIPS, 2)
    ulgm.update(rows, first, everyone(CLIPS), 1)
    labels = ulgm.update(rows, second, everyone(CLIPS), 2)

    def advantage(k: int) -> Tensor:
        positive, negative = first[k][LABEL >= 0].mean(dim=0), first[k][LABEL < 0].mean(dim=0)
        near: Tensor = (second[k] - positive).norm(dim=1)
        far: Tensor = (second[k] - negative).norm(dim=1)
        return (far - near) / (near + 1e-8)

    a_m = advantage(0)
    for s in range(3):
        a_s = advantage(s + 1)
        raw = 0.5 * (a_s / (a_m + 1e-8)) * LABEL + 0.5 * (LABEL + a_s - a_m)
        expected = LABEL / 3 + 2 / 3 * raw.clamp(-3, 3)
        torch.testing.assert_close(labels[:, s], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("epoch", "expected"), [(2, 5 / 3), (3, 1.5), (99, 1.02)])
def test_momentum_follows_the_equation(epoch: int, expected: float) -> None:
    """(n - 1)/(n + 1) of the former label and 2/(n + 1) of the new one."""
    found = momentum(torch.tensor(1.0), torch.tensor(2.0), epoch)
    assert found.item() == pytest.approx(expected)


@pytest.mark.parametrize("zero", [True, False])
def test_neutral_clips_count_as_positive_or_not_at_all(zero: bool) -> None:
    """>= 0 as in the release, > 0 as in MMSA."""
    ulgm = Ulgm(LABEL, SIZES, zero=zero)
    ulgm.update(torch.arange(CLIPS), four(CLIPS, 1), everyone(CLIPS), 1)
    assert ulgm.four[0].counts.tolist() == [8 if zero else 6, 4]


def test_without_one_of_the_classes_labels_stay() -> None:
    """A centre of nothing gives no NaN."""
    ulgm, rows = Ulgm(LABEL.abs(), SIZES), torch.arange(CLIPS)
    for epoch in (1, 2, 3):
        labels = ulgm.update(rows, four(CLIPS, epoch), everyone(CLIPS), epoch)
    torch.testing.assert_close(labels, LABEL.abs().unsqueeze(-1).expand(CLIPS, 3))


def test_huge_ratio_is_cut() -> None:
    """A fused representation between the centres makes the ratio anything."""
    raw = ulgm_label(torch.tensor(2.0), torch.tensor(5.0), torch.tensor(-1e-8), limit=3.0)
    assert raw.abs() <= 3
    assert ulgm_label(torch.tensor(0.0), torch.tensor(5.0), torch.tensor(-1e-8), limit=3.0) <= 3


def test_absent_modality_keeps_label_and_representation() -> None:
    """What is not there this time is neither judged nor remembered, NaN included."""
    ulgm, rows = Ulgm(LABEL, SIZES), torch.arange(CLIPS)
    ulgm.update(rows, four(CLIPS, 1), everyone(CLIPS), 1)
    before = ulgm.four[2].features.clone()
    spoilt = four(CLIPS, 2)
    spoilt[2] = torch.full_like(spoilt[2], torch.nan)
    labels = ulgm.update(rows, spoilt, torch.tensor([[True, False, True]]).expand(CLIPS, 3), 2)
    assert torch.equal(labels[:, 1], LABEL)
    assert torch.equal(ulgm.four[2].features, before)
    assert torch.isfinite(labels).all()


def test_batch_of_one_can_be_labelled() -> None:
    """Nothing is squeezed away."""
    ulgm = Ulgm(LABEL, SIZES)
    epoch_of(ulgm, 1, size=1)
    assert ulgm.update(torch.tensor([3]), four(1, 5), everyone(1), 2).shape == (1, 3)


def test_no_gradient_enters_the_memory() -> None:
    """A bank of all clips with their graphs would hold every batch of the epoch."""
    ulgm, features = Ulgm(LABEL, SIZES), [f.requires_grad_() for f in four(3, 1)]
    labels = ulgm.update(torch.arange(3), features, everyone(3), 1)
    assert not any(tensor.requires_grad for tensor in (labels, *ulgm.tensors().values()))


def test_clip_that_occurs_twice_is_refused() -> None:
    """Its former part would be taken off twice."""
    with pytest.raises(ValueError, match=r"rows \[1, 1\] name a clip twice"):
        Ulgm(LABEL, SIZES).update(torch.tensor([1, 1]), four(2, 1), everyone(2), 1)


def test_resumed_run_gives_the_same_labels() -> None:
    """All that it knows is in its tensors."""
    straight, broken_off = Ulgm(LABEL, SIZES), Ulgm(LABEL, SIZES)
    for epoch in (1, 2):
        epoch_of(straight, epoch)
        epoch_of(broken_off, epoch)
    resumed = Ulgm(LABEL, SIZES)
    resumed.restore({name: tensor.clone() for name, tensor in broken_off.tensors().items()})
    assert torch.equal(epoch_of(resumed, 3), epoch_of(straight, 3))


def test_state_of_another_training_set_is_refused() -> None:
    """The message names what differs and the remedy."""
    with pytest.raises(ValueError, match=r"does not fit in 0\.features.*begin afresh"):
        Ulgm(LABEL, SIZES).restore(Ulgm(LABEL[1:], SIZES).tensors())
