import copy
import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from helpers import in_child
from scipy.stats import wasserstein_distance
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from pyg_clusters.losses import SortedPenaltyLoss

BATCH = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])


@pytest.fixture
def values(generator):
    predicted, target = 600 + 40 * torch.randn(2, 8, generator=generator, dtype=torch.double)
    return predicted.requires_grad_(), target


def test_equation_by_hand():
    predicted, target = torch.tensor([1.0, 5.0, 2.0]), torch.tensor([4.0, 2.0, 6.0])
    mse = (9 + 9 + 16) / 3
    penalty = (1 + 4 + 1) / 3  # of 1 2 5 and 2 4 6
    for a in (0.0, 0.3, 3.0):
        assert float(SortedPenaltyLoss(a)(predicted, target)) == pytest.approx(mse + a * penalty)
    assert str(SortedPenaltyLoss()) == "SortedPenaltyLoss(a=3.0, within='batch')"


def test_without_penalty_it_is_the_mean_squared_error(values):
    for within in ("batch", "graph", "size"):
        assert SortedPenaltyLoss(0.0, within)(*values, BATCH).equal(torch.nn.functional.mse_loss(*values))


def test_zero_for_equal_and_penalty_zero_for_permuted(values):
    _, target = values
    order = torch.tensor([7, 0, 3, 2, 6, 1, 4, 5])
    assert SortedPenaltyLoss()(target, target) == 0
    assert SortedPenaltyLoss(10.0)(target[order], target).equal(SortedPenaltyLoss(0.0)(target[order], target))


def test_penalty_is_a_wasserstein_distance(generator):
    """For two distributions that differ by a shift, the penalty is the squared Wasserstein distance."""
    target = torch.rand(50, generator=generator, dtype=torch.double)
    predicted = target[torch.randperm(50, generator=generator)] + 2
    penalty = SortedPenaltyLoss(1.0)(predicted, target) - SortedPenaltyLoss(0.0)(predicted, target)
    assert float(penalty) == pytest.approx(wasserstein_distance(predicted, target) ** 2) == pytest.approx(4)


def test_within_graph_and_size(values):
    predicted, target = values[0].detach(), values[1]

    def penalty(within):
        return SortedPenaltyLoss(1.0, within)(predicted, target, BATCH) - (predicted - target).square().mean()

    def squares(*groups):
        parts = [(predicted[g].sort().values - target[g].sort().values).square().sum() for g in groups]
        return torch.stack(parts).sum() / 8

    first, middle, last = ([0, 1, 2], [3, 4], [5, 6, 7])
    torch.testing.assert_close(penalty("graph"), squares(first, middle, last))
    torch.testing.assert_close(penalty("size"), squares(first + last, middle))
    torch.testing.assert_close(penalty("batch"), squares(list(range(8))))
    assert len({round(float(penalty(within)), 6) for within in ("graph", "size", "batch")}) == 3


@pytest.mark.parametrize("within", ["batch", "graph", "size"])
def test_gradients(values, within):
    predicted, target = values
    loss = SortedPenaltyLoss(3.0, within)
    assert torch.autograd.gradcheck(lambda predicted: loss(predicted, target, BATCH), predicted)


def test_fine_differences_and_equal_values_are_sorted():
    target = torch.full((2000,), 600.0)
    batch = torch.arange(1000).repeat_interleave(2)
    predicted = target + torch.tensor([1e-3, 0.0]).repeat(1000)
    loss = SortedPenaltyLoss(1.0, "graph")
    assert loss(target, target, batch) == 0
    assert float(loss(predicted.flip(0), predicted, batch)) == pytest.approx(1e-6, rel=0.1)  # no penalty, only the MSE


@pytest.mark.parametrize("within", ["batch", "graph", "size"])
def test_batch_of_one_atom(within):
    predicted = torch.tensor([603.0], requires_grad=True)
    loss = SortedPenaltyLoss(3.0, within)(predicted, torch.tensor([600.0]), torch.tensor([0]))
    loss.backward()
    assert loss.item() == pytest.approx(4 * 9) and predicted.grad.item() == pytest.approx(4 * 2 * 3)


def test_wrong_use():
    with pytest.raises(ValueError, match="not negative, got -1"):
        SortedPenaltyLoss(-1.0)
    with pytest.raises(ValueError, match="one of batch, graph, size, got 'atom'"):
        SortedPenaltyLoss(within="atom")
    with pytest.raises(ValueError, match="needs the cluster of each atom"):
        SortedPenaltyLoss(within="size")(torch.zeros(2), torch.zeros(2))
    with pytest.raises(ValueError, match=r"\[2\] and \[2, 1\]"):
        SortedPenaltyLoss()(torch.zeros(2), torch.zeros(2, 1))


def one_of_two(rank: int, folder: Path, model: torch.nn.Module, x: Tensor, y: Tensor) -> int:
    """Loss and gradients by ``within`` in one of two processes."""
    limit = timedelta(seconds=100)
    torch.distributed.init_process_group("gloo", f"file://{folder / 'store'}", limit, world_size=2, rank=rank)
    own = slice(0, 3) if rank == 0 else slice(3, 8)  # whole clusters, of uneven numbers of atoms
    results = {}
    for within in ("batch", "graph", "size"):
        shared = DistributedDataParallel(copy.deepcopy(model))
        loss = SortedPenaltyLoss(3.0, within)(shared(x[own]).squeeze(-1), y[own], BATCH[own] - BATCH[own][0])
        loss.backward()
        results[within] = [loss.detach(), *(p.grad for p in shared.module.parameters())]
    torch.save(results, folder / str(rank))
    torch.distributed.barrier()
    return 0


def test_two_processes_equal_one(tmp_path, generator):
    model = torch.nn.Linear(4, 1).double()
    x, y = torch.randn(8, 4, generator=generator, dtype=torch.double), torch.randn(8, generator=generator).double()
    children = [in_child(lambda rank=rank: one_of_two(rank, tmp_path, model, x, y)) for rank in range(2)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    for within in ("batch", "graph", "size"):
        model.zero_grad()
        loss = SortedPenaltyLoss(3.0, within)(model(x).squeeze(-1), y, BATCH)
        loss.backward()
        expected = [loss.detach(), *(p.grad for p in model.parameters())]
        for rank in range(2):
            found = torch.load(tmp_path / str(rank), weights_only=True)[within]
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
