"""Directions as real spherical harmonics."""

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
    return harmonics_of_neighbors(direction[..., None, :], degree)[..., 1:, 0]


def harmonics_of_neighbors(direction: Tensor, degree: int) -> Tensor:
    r"""As :func:`spherical_harmonics`, from degree 0 on, in the order in which sums over neighbours are quick.

    Of order :math:`\pm m` they are the real and the imaginary part of :math:`(x + iy)^m` times a polynomial in z, the
    normalised associated Legendre function, by its recurrence in the degree.

    Args:
        direction: Unit vectors ``[..., num_neighbors, 3]``.
        degree: Largest degree.

    Returns:
        ``[..., (degree + 1)**2, num_neighbors]``, the orders of a degree from -n to n; the first of all is one.
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
