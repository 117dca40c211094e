"""Directions as real spherical harmonics."""

from functools import cache
from math import factorial, prod

import torch
from torch import Tensor

MAX_DEGREE: int = 8


def spherical_harmonics(direction: Tensor, degree: int) -> Tensor:
    r"""Real spherical harmonics of unit vectors, degrees 1 to ``degree``, those of a degree side by side.

    Racah's normalisation: the sum over the orders of a degree is the Legendre polynomial of the angle between two
    directions, :math:`\sum_m Y_{nm}(\mathbf{a}) Y_{nm}(\mathbf{b}) = P_n(\mathbf{a} \cdot \mathbf{b})`.

    Args:
        direction: Unit vectors ``[..., 3]``.
        degree: Largest degree, 1 to 8.

    Returns:
        ``[..., (degree + 1)**2 - 1]``, the orders of a degree from -n to n for degree n.

    Raises:
        ValueError: If the degree is not 1 to 8.
    """
    if not 1 <= degree <= MAX_DEGREE:
        raise ValueError(f"degree must be 1 to {MAX_DEGREE}, got {degree}")
    unscaled = unscaled_harmonics(direction[..., None, :], degree)[..., 0]
    return (unscaled * harmonic_scales(degree).to(direction))[..., 1:]


def unscaled_harmonics(direction: Tensor, degree: int) -> Tensor:
    r"""Spherical harmonics of degrees 0 to ``degree`` up to a factor each, :func:`harmonic_scales`.

    Of order :math:`\pm m` they are the real and the imaginary part of :math:`(x + iy)^m` times a polynomial in z of
    leading coefficient 1: the associated Legendre function, by :math:`Q_n = z Q_{n-1} - \frac{(n - m - 1)(n + m -
    1)}{(2n - 1)(2n - 3)} Q_{n-2}`. Scaling sums over neighbours is cheaper than scaling what is summed.

    Args:
        direction: Unit vectors ``[..., num_neighbors, 3]``.
        degree: Largest degree.

    Returns:
        ``[..., (degree + 1)**2, num_neighbors]``, the orders of a degree from -n to n; the first of all is one.
    """
    x, y, z = direction.movedim(-1, 0).contiguous()
    found = [z] * (degree + 1) ** 2
    real, imaginary = torch.ones_like(z), torch.zeros_like(z)  # of (x + iy)^m
    for m in range(degree + 1):
        before, legendre = torch.zeros_like(z), torch.ones_like(z)
        for n in range(m, degree + 1):
            if n > m:
                share = (n - m - 1) * (n + m - 1) / ((2 * n - 1) * (2 * n - 3))
                before, legendre = legendre, torch.sub(z * legendre, before, alpha=share) if share else z * legendre
            centre = n * n + n
            found[centre + m] = real * legendre if m else legendre
            if m:
                found[centre - m] = imaginary * legendre
        real, imaginary = x * real - y * imaginary, x * imaginary + y * real
    return torch.stack(found, dim=-2)


@cache
def harmonic_scales(degree: int) -> Tensor:
    """Factors ``[(degree + 1)**2]`` that make :func:`unscaled_harmonics` those of Racah's normalisation."""
    return torch.tensor([_scale(n, abs(m)) for n in range(degree + 1) for m in range(-n, n + 1)], dtype=torch.double)


def _scale(n: int, m: int) -> float:
    leading = prod(range(1, 2 * n, 2)) / factorial(n - m)  # coefficient of the associated Legendre function
    return leading * ((2 if m else 1) * factorial(n - m) / factorial(n + m)) ** 0.5
