"""Weights by name: averaged, copied, and put into a network for a moment."""

import pytest
import torch

from tamulag.models.training.weights import copied, mean_weights, replaced, update_average


def test_the_mean_of_weights_is_taken_tensor_by_tensor() -> None:
    """Each network counts alike."""
    mean = mean_weights([{"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([3.0, 6.0])}])
    assert mean["a"].tolist() == [2.0, 4.0]


def test_an_average_moves_by_the_rest_of_its_decay() -> None:
    """What is not in it is skipped."""
    average = {"a": torch.tensor([0.0])}
    update_average(average, {"a": torch.tensor([1.0]), "b": torch.ones(1)}.items(), 0.75)
    assert average["a"].tolist() == [0.25]
    assert average.keys() == {"a"}


def test_a_network_gets_its_own_weights_back() -> None:
    """After an error, too."""
    net = torch.nn.Linear(2, 1)
    before = copied(net.state_dict())

    def fail() -> None:
        with replaced(net, {"bias": torch.tensor([7.0])}):
            assert net.bias.item() == 7.0
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
