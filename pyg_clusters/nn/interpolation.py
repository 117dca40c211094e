"""A smooth function of one variable at very many places, from its values at few."""

import torch
from torch import Tensor

POINTS: int = 6
"""Nodes that a value is interpolated from."""


class Interpolation:
    r"""Places between evenly spaced nodes, and the weights of the six nodes around each.

    .. math::
        f(x) \approx s(x) \sum_{k=-2}^{3} \ell_k(t)\, f(x_{n+k}), \qquad x = x_n + t h, \quad 0 \le t < 1

    with the Lagrange polynomials :math:`\ell_k` of degree five and an optional factor s that is exact. The error falls
    with the sixth power of the spacing h.

    Args:
        places (Tensor): Where values are wanted, from 0 to ``upper``, ``[num_places]``.
        upper (float): End of the range, in the unit of the places.
        intervals (int): Number of intervals that the range is cut into.
        factor (Tensor, optional): s at each place ``[num_places]``.

    Example:
        >>> between = Interpolation(torch.tensor([0.25, 0.5]), upper=2.0, intervals=20)
        >>> values = between.nodes.exp()
        >>> (between.weights * values[between.index]).sum(1)
        tensor([1.2840, 1.6487])
    """

    nodes: Tensor
    """Where the function is to be evaluated: the ends of the intervals and some beyond the range, ``[num_nodes]``."""
    index: Tensor
    """The nodes around each place, ``[num_places, 6]``."""
    weights: Tensor
    """Their weights, ``[num_places, 6]``."""

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
    """Weights ``[num_places, 6]`` of the nodes at -2 ... 3 for places t between 0 and 1."""
    ticks = torch.arange(POINTS, dtype=torch.double) - (POINTS // 2 - 1)
    coefficients = torch.linalg.inv(torch.vander(ticks, increasing=True))  # [powers, nodes]
    powers = [torch.ones_like(t)]
    for _ in range(1, POINTS):
        powers.append(powers[-1] * t)
    return torch.stack(powers, dim=1) @ coefficients.to(t)
