"""Losses of values per atom."""

from typing import Literal, get_args

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch_geometric.utils import lexsort

from pyg_clusters.errors import InputError

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

    Args:
        a (float): Weight of the penalty, not negative.
        within (str): Atoms that are sorted together: all of the ``"batch"`` (as in the paper), those of one cluster
            (``"graph"``), or those of all clusters of one ``"size"``. The penalty is then the mean of the squared
            2-Wasserstein distances, weighted by the numbers of atoms.

    Shapes:
        - **input:** predictions ``[num_atoms]``, targets ``[num_atoms]``, cluster of each atom ``batch [num_atoms]``
          (not needed for ``within="batch"``)
        - **output:** a number, in the square of the values' unit

    Example:
        >>> target = torch.tensor([500.0, 600.0])
        >>> SortedPenaltyLoss()(target.flip(0), target)  # the distribution is right, the atoms are not
        tensor(10000.)
    """

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
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            raise InputError("the penalty needs all atoms of a batch in one process: train on a single device")
        group = None if self.within == "batch" else batch
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
