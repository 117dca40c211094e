"""Losses for values per atom."""

from typing import Any, Literal, get_args

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch_geometric.utils import lexsort

Within = Literal["batch", "graph", "size"]


class SortedPenaltyLoss(nn.Module):
    r"""Squared error with a penalty on the sorted values (Kaneko et al. 2023, Eq. 1, `doi 10.20517/jmi.2022.39
    <https://doi.org/10.20517/jmi.2022.39>`_).

    .. math::
        L = \frac{1}{n} \sum_{i=1}^{n} (y_i - \hat{y}_i)^2 + \frac{a}{n} \sum_{i=1}^{n} (y^{sort}_i -
        \hat{y}^{sort}_i)^2

    over the n atoms of the mini-batch. The second sum divided by n is the squared 2-Wasserstein distance between the
    two empirical distributions: the penalty restores their shape (tails, most frequent value), which the squared error
    alone narrows towards the mean. With a = 0 the loss is the mean squared error.

    In distributed training (:mod:`torch.distributed`), values are gathered from all processes, whose numbers of atoms
    may differ, and every process returns the loss of the whole batch. Gradients are scaled for their *mean* over the
    processes, which :class:`~torch.nn.parallel.DistributedDataParallel` computes: value and gradient do not depend on
    the number of processes, and must not be weighted by the number of atoms of each process. All processes must call
    the loss the same number of times.

    Args:
        a (float): Weight of the penalty, not negative.
        within (str): Atoms that are sorted together: all of the ``"batch"`` (as in the paper), those of one cluster
            (``"graph"``), or those of all clusters of one ``"size"``. The penalty is then the mean of the squared
            2-Wasserstein distances, weighted by the numbers of atoms.

    Shapes:
        - **input:** predictions ``[num_atoms]``, targets ``[num_atoms]``, cluster of each atom ``batch [num_atoms]``
          (not needed for ``within="batch"``)
        - **output:** scalar, in the square of the unit of the values

    Example:
        >>> target = torch.tensor([500.0, 600.0])
        >>> SortedPenaltyLoss()(target.flip(0), target)  # correct distribution, but the atoms are interchanged
        tensor(10000.)
    """

    gathers_processes: bool = True
    """Whether the loss is already computed for the batch of all processes."""

    def __init__(self, a: float = 3.0, within: Within = "batch"):
        super().__init__()
        if not 0 <= a < float("inf"):
            raise ValueError(f"the weight a of the penalty must be finite and not negative, got {a}")
        if within not in get_args(Within):
            raise ValueError(f"within must be one of {', '.join(get_args(Within))}, got {within!r}")
        self.a = a
        self.within = within

    def forward(self, predicted: Tensor, target: Tensor, batch: Tensor | None = None) -> Tensor:
        if predicted.shape != target.shape or predicted.dim() != 1:
            raise ValueError(f"values must be [num_atoms], got {list(predicted.shape)} and {list(target.shape)}")
        if self.within != "batch" and batch is None:
            raise ValueError(f"sorting within a {self.within} needs the cluster of each atom, batch [num_atoms]")
        group = None if self.within == "batch" else batch
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            predicted, target, group = _gathered(predicted, target, group)
        if group is not None and self.within == "size":
            group = torch.bincount(group)[group]
        loss = (target - predicted).square().mean()
        if self.a == 0:
            return loss
        return loss + self.a * (_sorted(target, group) - _sorted(predicted, group)).square().mean()

    def extra_repr(self) -> str:
        return f"a={self.a}, within={self.within!r}"


def _sorted(values: Tensor, group: Tensor | None) -> Tensor:
    """Values in ascending order, group by group."""
    if group is None:
        return values.sort().values
    return values[lexsort([values.detach(), group])]


def _gathered(predicted: Tensor, target: Tensor, group: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Values of all processes, in the order of the processes, with clusters numbered consecutively."""
    counts = torch.tensor([predicted.numel(), 0], device=predicted.device)
    if group is not None and group.numel():
        counts[1] = group.max() + 1
    every = [torch.empty_like(counts) for _ in range(dist.get_world_size())]
    dist.all_gather(every, counts)
    atoms, graphs = torch.stack(every).unbind(1)
    sizes = atoms.tolist()
    if group is not None:
        before = graphs[: dist.get_rank()].sum()
        group = _GatherAtoms.apply(group + before, sizes)
    return _GatherAtoms.apply(predicted, sizes), _GatherAtoms.apply(target, sizes), group


class _GatherAtoms(torch.autograd.Function):
    """Concatenation over the processes of tensors ``[num_atoms]`` of different lengths.

    Every process computes the same function of the result, so the gradient of a process's part summed over processes is
    its own gradient times their number, and the backward pass needs no communication.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        padded = values.new_zeros(max(sizes))
        padded[: values.numel()] = values
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        own = gradients[0].split(ctx.sizes)[dist.get_rank()]
        return own * len(ctx.sizes), None
