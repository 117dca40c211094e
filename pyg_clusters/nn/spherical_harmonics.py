"""Directions as real spherical harmonics."""

from functools import cache
from itertools import pairwise

import torch
from torch import Tensor

MAX_DEGREE: int = 4


def spherical_harmonics(direction: Tensor, degree: int) -> Tensor:
    r"""Real spherical harmonics of unit vectors, degrees 1 to ``degree``, those of a degree side by side.

    Racah's normalisation: the sum over the orders of a degree is the Legendre polynomial of the angle between two
    directions, :math:`\sum_m Y_{lm}(\mathbf{a}) Y_{lm}(\mathbf{b}) = P_l(\mathbf{a} \cdot \mathbf{b})`.

    Args:
        direction: Unit vectors ``[..., 3]``.
        degree: Largest degree, 1 to 4.

    Returns:
        ``[..., (degree + 1)**2 - 1]``.

    Raises:
        ValueError: If the degree is not 1 to 4.
    """
    if not 1 <= degree <= MAX_DEGREE:
        raise ValueError(f"degree must be 1 to {MAX_DEGREE}, got {degree}")
    x, y, z = direction.unbind(-1)
    found = [x, y, z]
    if degree >= 2:
        xx, yy, zz = x * x, y * y, z * z
        three = 3**0.5
        found += [three * x * y, three * y * z, 1.5 * zz - 0.5, three * x * z, (three / 2) * (xx - yy)]
    if degree >= 3:
        a, b, c = (5 / 8) ** 0.5, 15**0.5, (3 / 8) ** 0.5
        found += [
            a * y * (3 * xx - yy),
            b * x * y * z,
            c * y * (5 * zz - 1),
            0.5 * z * (5 * zz - 3),
            c * x * (5 * zz - 1),
            (b / 2) * z * (xx - yy),
            a * x * (xx - 3 * yy),
        ]
    if degree >= 4:
        d, e, f, g = (35 / 4) ** 0.5, (35 / 8) ** 0.5, (5 / 4) ** 0.5, (5 / 8) ** 0.5
        found += [
            d * x * y * (xx - yy),
            e * y * z * (3 * xx - yy),
            f * x * y * (7 * zz - 1),
            g * y * z * (7 * zz - 3),
            (35 * zz * zz - 30 * zz + 3) / 8,
            g * x * z * (7 * zz - 3),
            (f / 2) * (xx - yy) * (7 * zz - 1),
            e * x * z * (xx - 3 * yy),
            (d / 4) * (xx * (xx - 3 * yy) - yy * (3 * xx - yy)),
        ]
    return torch.stack(found, dim=-1)


def monomials(direction: Tensor, degree: int) -> Tensor:
    r"""Products :math:`x^a y^b z^c` with :math:`c \le 1` and :math:`a + b + c \le` ``degree`` of unit vectors.

    On the unit sphere, where :math:`z^2 = 1 - x^2 - y^2`, they span what the spherical harmonics of degrees 0 to
    ``degree`` span, of which there are as many, and each costs one multiplication. Sums over neighbours are therefore
    taken of them, and turned into sums of harmonics by :func:`monomials_to_harmonics`.

    Args:
        direction: Unit vectors ``[..., num_neighbors, 3]``.
        degree: Largest degree.

    Returns:
        ``[..., (degree + 1)**2, num_neighbors]``, the first of them one.
    """
    x, y, z = direction.unbind(-1)
    one = torch.ones_like(x)
    without_z = [[one], [x, y]]  # by degree
    while len(without_z) <= degree:
        before = without_z[-1]
        without_z.append([x * value for value in before] + [y * before[-1]])
    found = [one]
    for lower, of_degree in pairwise(without_z[: degree + 1]):
        found += of_degree + [z if value is one else z * value for value in lower]
    return torch.stack(found, dim=-2)


@cache
def monomials_to_harmonics(degree: int) -> Tensor:
    """Matrix ``[(degree + 1)**2, (degree + 1)**2 - 1]`` by which :func:`monomials` become the harmonics.

    From some hundred directions, in double precision: exact to 1e-14, and zero where it should be.
    """
    generator = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(200, 3, dtype=torch.double, generator=generator), dim=-1)
    matrix = torch.linalg.lstsq(monomials(direction, degree).mT, spherical_harmonics(direction, degree)).solution
    return torch.where(matrix.abs() < 1e-12, 0.0, matrix)
