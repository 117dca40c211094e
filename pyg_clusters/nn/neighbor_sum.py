"""Weighted sums over the near neighbours of large clusters, differentiable any number of times."""

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from pyg_clusters.geometry import sizes_to_ptr
from pyg_clusters.pairs import both_directions


class Neighbors(NamedTuple):
    """Neighbours of each atom, from pairs that have a weight each."""

    source: Tensor
    """Neighbours of the atoms, one atom after the other, ``[2 * num_pairs]``."""
    pair: Tensor
    """Pair of atom and neighbour, ``[2 * num_pairs]``."""
    ptr: Tensor
    """Offsets of the neighbours of the atoms, ``[num_atoms + 1]``."""

    @classmethod
    def of(cls, pairs: Tensor, num_atoms: int) -> "Neighbors":
        """The neighbours by unordered pairs of atoms ``[2, num_pairs]``."""
        edge_index, pair = both_directions(pairs, by_source=False)
        degree = torch.bincount(edge_index[1], minlength=num_atoms)
        return cls(edge_index[0], pair, sizes_to_ptr(degree))


def neighbor_sum(x: Tensor, weight: Tensor, neighbors: Neighbors) -> Tensor:
    r"""The sum :math:`y_i = \sum_j w_{ij} x_j`; no message of a pair is held.

    Args:
        x: Features ``[num_atoms, channels]``.
        weight: Weights of the pairs ``[num_pairs]``.
        neighbors: The neighbours.

    Returns:
        ``[num_atoms, channels]``.
    """
    return _NeighborSum.apply(x, weight, *neighbors)


class _NeighborSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, *neighbors: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, *neighbors)
        source, pair, ptr = neighbors
        weights = weight.index_select(0, pair)
        return embedding_bag(source, x, ptr, per_sample_weights=weights, mode="sum", include_last_offset=True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *neighbors = ctx.saved_tensors
        gradient = gradient.contiguous()
        of_x = _NeighborSum.apply(gradient, weight, *neighbors) if ctx.needs_input_grad[0] else None
        of_weight = _PairProducts.apply(gradient, x, *neighbors) if ctx.needs_input_grad[1] else None
        return of_x, of_weight, None, None, None


class _PairProducts(torch.autograd.Function):
    """The products a_i · b_j + a_j · b_i of the pairs, ``[num_pairs]``."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, *neighbors: Tensor) -> Tensor:
        ctx.save_for_backward(a, b, *neighbors)
        source, pair, ptr = neighbors
        with warnings.catch_warnings():  # sparse tensors in rows are beta
            warnings.simplefilter("ignore", UserWarning)
            zeros = torch.sparse_csr_tensor(ptr, source, a.new_zeros(source.numel()), (len(a), len(a)))
            products = torch.sparse.sampled_addmm(zeros, a, b.T, beta=0.0).values()
        return a.new_zeros(source.numel() // 2).index_add_(0, pair, products)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        a, b, *neighbors = ctx.saved_tensors
        of_a = _NeighborSum.apply(b, gradient, *neighbors) if ctx.needs_input_grad[0] else None
        of_b = _NeighborSum.apply(a, gradient, *neighbors) if ctx.needs_input_grad[1] else None
        return of_a, of_b, None, None, None
