r"""Intervals with a stated coverage from a held-out set: split conformal prediction.

A held-out set gives scores :math:`s_i = |y_i - \hat y_i| / w_i`, where the width :math:`w_i` is any guess of the error
that was made without the held-out set. The interval :math:`\hat y \pm q\, w` with q the suitable quantile of the
scores holds the truth of a new cluster with at least the stated probability, whatever the model and however bad the
guess, provided that the new cluster is drawn like the held-out ones (Vovk, Gammerman, Shafer, *Algorithmic learning in
a random world*, 2005; Angelopoulos & Bates, `"A gentle introduction to conformal prediction"
<https://arxiv.org/abs/2107.07511>`_, 2021, sections 1 and 2.3).

Clusters of one search segment or trajectory are alike: what is resampled is then a segment, not a cluster. With
groups, each of K held-out groups has weight 1 / (K + 1), shared by its clusters, and the rest lies at infinity (Lee,
Barber, Willett, `"Distribution-free inference with hierarchical data" <https://arxiv.org/abs/2306.06342>`_, 2023).
Where every cluster is a group of its own, that is the usual quantile of rank :math:`\lceil (n + 1)\, c \rceil`.
"""

from collections.abc import Callable
from contextlib import suppress

import numpy as np
from numpy.typing import ArrayLike

from pyg_clusters.errors import InputError
from pyg_clusters.units import KCAL_PER_MOL

COVERAGES: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.68, 0.75, 0.8, 0.85, 0.9, 0.95)
"""Nominal coverages of a reliability figure."""


def check_coverage(coverage: float) -> float:
    """A coverage between 0 and 1.

    Raises:
        InputError: If it is not.
    """
    if not 0 < coverage < 1:
        raise InputError(f"coverage must be between 0 and 1 (0.9, say), got {coverage:g}")
    return coverage


def conformal_quantile(scores: ArrayLike, coverage: float, groups: ArrayLike | None = None) -> float:
    """The score that a new one does not exceed with at least the probability ``coverage``.

    Args:
        scores: Scores of the held-out set ``[num]``.
        coverage: The probability.
        groups: Group of each score ``[num]``, numbers or strings; each is one of its own, if not given.

    Raises:
        InputError: If the coverage is not between 0 and 1, or there are too few groups for one so high: K of them give
            a coverage of K / (K + 1) at most.

    Example:
        >>> conformal_quantile([1, 2, 3, 4, 5, 6, 7, 8, 9], 0.8)  # the eighth of nine: 8 / 10
        8.0
        >>> conformal_quantile([1, 2, 3, 4, 5, 6], 0.5, ["a", "a", "a", "a", "b", "b"])
        5.0
    """
    check_coverage(coverage)
    scores = np.asarray(scores, dtype=np.float64)
    groups = np.arange(len(scores)) if groups is None else np.asarray(groups)
    _, group, counts = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(1.0 / counts[group[order]]) / (len(counts) + 1)
    place = int(np.searchsorted(reached, coverage - 1e-9))
    if place == len(scores):
        number = len(counts)
        raise InputError(
            f"coverage {coverage:g} needs {int(np.ceil(coverage / (1 - coverage) - 1e-6))} independent groups of "
            f"clusters to calibrate with, there are {number}; ask for at most {number / (number + 1):.3f}"
        )
    return float(scores[order[place]])


def highest_coverage(num_groups: int) -> float:
    """The highest coverage that can be asked of so many held-out groups."""
    return num_groups / (num_groups + 1)


def interval_metrics(
    error: ArrayLike,
    half_width: ArrayLike,
    coverage: float,
    groups: ArrayLike | None = None,
    unit: str = "kcal_mol",
    per_unit: float = KCAL_PER_MOL,
) -> dict[str, float | int]:
    """Coverage and width of intervals.

    Args:
        error: Errors of the predictions in eV (or ppm) ``[num]``.
        half_width: Half widths of the intervals in the same unit ``[num]``.
        coverage: What they were made for.
        groups: Group of each prediction ``[num]``; each is one of its own, if not given.
        unit: Unit of the widths that are reported.
        per_unit: Factor from the unit of the errors to it.

    Returns:
        ``coverage``, ``coverage_reached``, its ``standard_error`` (those of a group counted as drawn together),
        ``mean_width_kcal_mol`` (named by the unit) and ``num_groups``.

    Example:
        >>> metrics = interval_metrics([0.1, -0.3, 0.2, 0.0], [0.2, 0.2, 0.2, 0.2], 0.8)
        >>> metrics["coverage_reached"], round(metrics["standard_error"], 3)
        (0.75, 0.217)
    """
    error, half_width = np.asarray(error, dtype=np.float64), np.asarray(half_width, dtype=np.float64)
    inside = np.abs(error) <= half_width
    reached = float(inside.mean())
    _, group = np.unique(np.arange(len(error)) if groups is None else np.asarray(groups), return_inverse=True)
    residuals = np.bincount(group, weights=inside - reached)
    return {
        "coverage": coverage,
        "coverage_reached": reached,
        "standard_error": float(np.sqrt(np.square(residuals).sum()) / len(error)),
        f"mean_width_{unit}": float(2 * half_width.mean() * per_unit),
        "num_groups": int(group.max()) + 1,
    }


def reliability_rows(
    error: ArrayLike, half_width: Callable[[float], ArrayLike], groups: ArrayLike | None = None, **unit
) -> list[dict[str, float | int]]:
    """:func:`interval_metrics` at the nominal coverages of :data:`COVERAGES`, as far as they can be asked for.

    Args:
        error: Errors of the predictions in eV ``[num]``.
        half_width: Half widths in eV ``[num]`` for a coverage.
        groups: Group of each prediction ``[num]``.
        unit: Unit and factor of :func:`interval_metrics`.
    """
    rows = []
    for coverage in COVERAGES:
        with suppress(InputError):
            rows.append(interval_metrics(error, half_width(coverage), coverage, groups, **unit))
    return rows
