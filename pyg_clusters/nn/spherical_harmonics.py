"""Directions as real spherical harmonics."""

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
