"""Weighted or filtered sums over neighbours, and real spherical harmonics of their directions."""

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

from pyg_clusters.geometry import is_traced, sizes_to_ptr
from pyg_clusters.pairs import both_directions

POINTS: int = 6  # number of nodes from which a value is interpolated


class Interpolation:
    r"""Polynomial interpolation between evenly spaced nodes.

    .. math::
        f(x) \approx s(x) \sum_{k=-2}^{3} \ell_k(t)\, f(x_{n+k}), \qquad x = x_n + t h, \quad 0 \le t < 1

    with the Lagrange polynomials :math:`\ell_k` of degree five and an optional exact factor s. The error decreases with
    the sixth power of the spacing h.

    Args:
        places (Tensor): Points x from 0 to ``upper`` at which the function is interpolated, ``[num_places]``.
        upper (float): End of the range, in the unit of the points.
        intervals (int): Number of intervals between the nodes.
        factor (Tensor, optional): Factor s at each point ``[num_places]``.

    Example:
        >>> between = Interpolation(torch.tensor([0.25, 0.5]), upper=2.0, intervals=20)
        >>> values = between.nodes.exp()
        >>> (between.weights * values[between.index]).sum(1)
        tensor([1.2840, 1.6487])
    """

    nodes: Tensor
    """Nodes at which the function must be evaluated, some of them beyond the range, ``[num_nodes]``."""
    index: Tensor
    """Indices of the nodes around each point, ``[num_places, 6]``."""
    weights: Tensor
    """Weights of these nodes, ``[num_places, 6]``."""

    def __init__(self, places: Tensor, upper: float, intervals: int, factor: Tensor | None = None):
        spacing = upper / intervals
        before = POINTS // 2 - 1
        ticks = torch.arange(-before, intervals + POINTS - before, dtype=places.dtype, device=places.device)
        self.nodes = ticks * spacing
        scaled = places / spacing
        left = scaled.detach().floor().nan_to_num().clamp(0, intervals - 1)
        self.index = left.long()[:, None] + torch.arange(POINTS, device=places.device)
        self.weights = _lagrange(scaled - left)
        if factor is not None:
            self.weights = self.weights * factor[:, None]


def _lagrange(t: Tensor) -> Tensor:
    """Weights ``[num_places, 6]`` of the nodes at -2, ..., 3 for points t between 0 and 1."""
    ticks = torch.arange(POINTS, dtype=torch.double) - (POINTS // 2 - 1)
    coefficients = torch.linalg.inv(torch.vander(ticks, increasing=True))  # [powers, nodes]
    powers = [torch.ones_like(t)]
    for _ in range(1, POINTS):
        powers.append(powers[-1] * t)
    return torch.stack(powers, dim=1) @ coefficients.to(t)


PAIRS_AT_ONCE: dict[str, int] = {"cpu": 4096}
"""Number of pairs in memory at a time by type of device; on a CPU they fit in the cache."""

PAIRS_ELSEWHERE: int = 2**20


def filtered_sum(x: Tensor, filters: Tensor, edge_index: Tensor, between: Interpolation) -> Tensor:
    r"""Continuous-filter convolution, :math:`y_i = \sum_j x_j \odot W(d_{ij})` (Schütt et al. 2017, `SchNet
    <https://arxiv.org/abs/1706.08566>`_, section 4.1), with W interpolated from its values at the nodes.

    Pairs are processed in blocks in the forward and backward pass. Filters and messages of all pairs are never in
    memory together, so memory does not grow with the number of pairs times the number of channels. The sum is
    differentiable once with respect to x, the filters, and the weights of the interpolation (hence the distances).

    Args:
        x: Features ``[num_atoms, channels]``.
        filters: W at the nodes of the interpolation, ``[num_nodes, channels]``.
        edge_index: Pairs ``[2, num_edges]`` (source j, target i).
        between: Interpolation to the distances of the pairs.

    Returns:
        ``[num_atoms, channels]``.
    """
    if is_traced():
        rows = _rows(filters, between.index, between.weights.to(filters.dtype))
        return torch.zeros_like(x).index_add(0, edge_index[1], rows * x.index_select(0, edge_index[0]))
    return _FilteredSum.apply(x, filters, edge_index, between.index, between.weights.to(filters.dtype))


class _FilteredSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, filters: Tensor, edge_index: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, filters, edge_index, index, weights)
        y = torch.zeros_like(x)
        for (source, target), nodes, shares in _blocks(edge_index, index, weights):
            y.index_add_(0, target, _rows(filters, nodes, shares).mul_(x.index_select(0, source)))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, filters, edge_index, index, weights = ctx.saved_tensors
        of_x, of_filters, _, _, of_weights = (
            torch.zeros_like(tensor) if needed else None
            for tensor, needed in zip((x, filters, edge_index, index, weights), ctx.needs_input_grad, strict=True)
        )
        first = 0
        for (source, target), nodes, shares in _blocks(edge_index, index, weights):
            of_sum = gradient.index_select(0, target)  # [num_pairs, channels]
            if of_x is not None:
                of_x.index_add_(0, source, _rows(filters, nodes, shares).mul_(of_sum))
            of_filter = of_sum.mul_(x.index_select(0, source))
            if of_filters is not None:
                of_filters += _sums_at_nodes(of_filter, nodes, shares, filters.size(0))
            if of_weights is not None:
                columns = [(of_filter * filters.index_select(0, node)).sum(-1) for node in nodes.unbind(1)]
                of_weights[first : first + nodes.size(0)] = torch.stack(columns, dim=1)
            first += nodes.size(0)
        return of_x, of_filters, None, None, of_weights


def _blocks(edge_index: Tensor, index: Tensor, weights: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    at_once = PAIRS_AT_ONCE.get(weights.device.type, PAIRS_ELSEWHERE)
    return zip(edge_index.split(at_once, dim=1), index.split(at_once), weights.split(at_once), strict=True)


def _rows(filters: Tensor, nodes: Tensor, shares: Tensor) -> Tensor:
    """Interpolated filters ``[num_pairs, channels]``."""
    return embedding_bag(nodes, filters, per_sample_weights=shares, mode="sum")


def _sums_at_nodes(values: Tensor, nodes: Tensor, shares: Tensor, num_nodes: int) -> Tensor:
    """Transpose of :func:`_rows`: weighted sums of the values of pairs at each node, ``[num_nodes, channels]``.

    This is ten times faster than the gradient of :func:`embedding_bag`.
    """
    order = nodes.flatten().argsort()
    counts = torch.bincount(nodes.flatten(), minlength=num_nodes)
    pairs = order // nodes.size(1)
    shares = shares.flatten()[order]
    return embedding_bag(pairs, values, counts.cumsum(0) - counts, per_sample_weights=shares, mode="sum")


class Neighbors(NamedTuple):
    """Neighbours of each atom, in compressed sparse row format."""

    source: Tensor  #: Neighbours, ordered by atom, ``[2 * num_pairs]``.
    pair: Tensor  #: Index of the unordered pair of atom and neighbour, ``[2 * num_pairs]``.
    ptr: Tensor  #: Offsets of the neighbours of each atom, ``[num_atoms + 1]``.

    @classmethod
    def of(cls, pairs: Tensor, num_atoms: int) -> "Neighbors":
        """Create the neighbours from unordered pairs of atoms ``[2, num_pairs]``."""
        edge_index, pair = both_directions(pairs, by_source=False)
        degree = torch.bincount(edge_index[1], minlength=num_atoms)
        return cls(edge_index[0], pair, sizes_to_ptr(degree))


def neighbor_sum(x: Tensor, weight: Tensor, neighbors: Neighbors) -> Tensor:
    r"""Weighted sums over neighbours :math:`y_i = \sum_j w_{ij} x_j`, ``[num_atoms, channels]``, without messages.

    Args:
        x: Features ``[num_atoms, channels]``.
        weight: Weights of the pairs ``[num_pairs]``.
        neighbors: The neighbours.
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
    """Products a_i · b_j + a_j · b_i of the pairs, ``[num_pairs]``."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, *neighbors: Tensor) -> Tensor:
        ctx.save_for_backward(a, b, *neighbors)
        source, pair, ptr = neighbors
        with warnings.catch_warnings():  # PyTorch warns that sparse CSR tensors are in beta
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


MAX_DEGREE: int = 8


def spherical_harmonics(direction: Tensor, degree: int) -> Tensor:
    r"""Real spherical harmonics of unit vectors, degrees 1 to ``degree``.

    In Racah's normalisation, the sum over the orders of a degree is the Legendre polynomial of the angle between two
    directions, :math:`\sum_m Y_{nm}(\mathbf{a}) Y_{nm}(\mathbf{b}) = P_n(\mathbf{a} \cdot \mathbf{b})`.

    Args:
        direction: Unit vectors ``[..., 3]``.
        degree: Maximum degree, 1 to 8.

    Returns:
        Tensor ``[..., (degree + 1)**2 - 1]``, by degree n and then by order from -n to n.

    Raises:
        ValueError: If the degree is not 1 to 8.
    """
    if not 1 <= degree <= MAX_DEGREE:
        raise ValueError(f"degree must be 1 to {MAX_DEGREE}, got {degree}")
    return harmonics_of_neighbors(direction[..., None, :], degree)[..., 1:, 0]


def harmonics_of_neighbors(direction: Tensor, degree: int) -> Tensor:
    r"""Like :func:`spherical_harmonics`, including degree 0, in a layout in which sums over neighbours are fast.

    The harmonics of order :math:`\pm m` are the real and the imaginary part of :math:`(x + iy)^m` times a polynomial in
    z, the normalised associated Legendre function, which is computed by its recurrence in the degree.

    Returns:
        Tensor ``[..., (degree + 1)**2, num_neighbors]`` of unit vectors ``[..., num_neighbors, 3]``, by degree n (up to
        8) and then by order from -n to n; the first harmonic is one.
    """
    x, y, z = direction.movedim(-1, 0).contiguous()
    found = [z] * (degree + 1) ** 2
    real, imaginary = torch.ones_like(z), torch.zeros_like(z)  # the harmonics of degree m and order ±m
    for m in range(degree + 1):
        if m:
            rise = ((2 * m - 1) / (2 * m)) ** 0.5 if m > 1 else 1.0
            right, up = rise * x, rise * y
            real, imaginary = right * real - up * imaginary, right * imaginary + up * real
        before, legendre = torch.zeros_like(z), torch.ones_like(z)
        for n in range(m, degree + 1):
            if n > m:
                share, of_z = ((n - 1) ** 2 - m**2) ** 0.5, (2 * n - 1)
                norm = (n**2 - m**2) ** 0.5
                before, legendre = legendre, torch.addcmul(before * (-share / norm), z, legendre, value=of_z / norm)
            centre = n * n + n
            found[centre + m] = real * legendre
            if m:
                found[centre - m] = imaginary * legendre
    return torch.stack(found, dim=-2)
