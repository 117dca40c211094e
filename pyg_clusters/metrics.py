"""Errors of predicted energies and shieldings, and coverage of their intervals.

Energies are in eV per cluster; their errors are reported per cluster in kcal/mol and per atom in meV. Clusters of
different sizes are compared by their errors only; ranks are compared within a size (for alloys, within a composition),
where they decide which isomer is selected for a DFT calculation. Shieldings are in ppm per atom; their distribution,
which determines the spectrum, does not depend on the assignment to atoms.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import gaussian_kde, ks_2samp, skew, spearmanr, wasserstein_distance

from pyg_clusters.composition import kind_label
from pyg_clusters.errors import InputError
from pyg_clusters.units import KCAL_PER_MOL, MEV

MIN_CLUSTERS_FOR_RANKS: int = 5
"""Minimum number of clusters of a size whose rank correlation enters the mean over sizes."""

SHIFTS: str = (
    "the labels decrease where the predicted shieldings increase: if they are chemical shifts, subtract them from the "
    "shielding of their standard first"
)
"""Message about labels that :func:`look_like_shifts`."""

PER_ATOM: str = (
    "the energies hardly change with the number of atoms, as energies per atom do: multiply them by the number of atoms"
)
"""Message about energies that :func:`look_per_atom`."""

ONE_ZERO: float = 10.0
"""Difference in eV per atom between energies of a composition that only overlapping atoms could explain."""

EMPTY_RANGE: float = 0.5  # smallest distance in eV per atom between groups of energies with different zeros or units
MIN_ATOMS_BOUND: int = 4  # smallest size that is checked for such groups; bound and separated dimers are two groups

MIN_ATOMS_FOR_SIGN: int = 10
"""Minimum number of atoms needed to judge the sign of labels."""

COVERAGES: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.68, 0.75, 0.8, 0.85, 0.9, 0.95)
"""Nominal coverages of a reliability figure."""


def energy_metrics(
    predicted: ArrayLike, target: ArrayLike, sizes: ArrayLike, kinds: ArrayLike | None = None
) -> dict[str, float | int]:
    """Errors over all clusters, and the mean rank correlation within a size or composition.

    Args:
        predicted: Energies in eV, ``[num_graphs]``.
        target: Energies in eV, ``[num_graphs]``.
        sizes: Number of atoms of each cluster, ``[num_graphs]``.
        kinds: Groups within which ranks are compared, ``[num_graphs]``: the compositions of alloys
            (:func:`~pyg_clusters.composition.comparable`); by default the sizes.

    Returns:
        ``mae_kcal_mol`` and ``rmse_kcal_mol`` per cluster, ``mae_mev_per_atom`` and ``rmse_mev_per_atom`` (of the
        error divided by the number of atoms), ``num_clusters``, and ``spearman_within_size``: the mean of
        Spearman's rank correlation over the sizes (compositions) with at least five clusters, weighted by their
        number; NaN if there is no such size.

    Raises:
        InputError: If there are no clusters.
        ValueError: If the arrays differ in length.

    Example:
        >>> metrics = energy_metrics([-100.0, -130.0], [-100.1, -130.2], [40, 50])
        >>> round(metrics["mae_kcal_mol"], 3), round(metrics["mae_mev_per_atom"], 3)
        (3.459, 3.25)
    """
    predicted, target, sizes = _checked(predicted, target, sizes)
    rows = _rows(predicted, target, sizes, kinds)
    ranked = [row for row in rows if row["num_clusters"] >= MIN_CLUSTERS_FOR_RANKS and np.isfinite(row["spearman"])]
    weights = [row["num_clusters"] for row in ranked]
    mean = np.average([row["spearman"] for row in ranked], weights=weights) if ranked else np.nan
    return {**_errors(predicted, target, sizes), "num_clusters": len(sizes), "spearman_within_size": float(mean)}


def metrics_by_size(
    predicted: ArrayLike, target: ArrayLike, sizes: ArrayLike, kinds: ArrayLike | None = None
) -> list[dict[str, Any]]:
    """Errors and rank correlation of each cluster size, or composition of alloys, in increasing order.

    The arguments and errors are those of :func:`energy_metrics`.

    Returns:
        Rows of ``size`` (and ``composition``, if the kinds are compositions), ``num_clusters``, the errors, and
        ``spearman`` (NaN for a single cluster, or if all energies are equal).
    """
    return _rows(*_checked(predicted, target, sizes), kinds)


def mixed_zeros(
    energy: ArrayLike, sizes: ArrayLike, kinds: ArrayLike, names: Sequence[str] | None = None
) -> str | None:
    """Warning about energies that differ within a size or composition by more than clusters can.

    They differ by :data:`ONE_ZERO`, or form two groups far apart, as energies in eV and hartree or of both signs do.

    Args:
        energy: Energies in eV, ``[num_graphs]``.
        sizes: Number of atoms of each cluster, ``[num_graphs]``.
        kinds: Size or composition of each cluster, ``[num_graphs]``, or its index among ``names``.
        names: Names of the compositions.

    Example:
        >>> mixed_zeros([-26.0, -0.955, -25.9], [13, 13, 13], [13, 13, 13]).partition(":")[0]
        'energies of 13 atoms differ by up to 1.927 eV per atom'
        >>> mixed_zeros([-26.0, -52026.1], [13, 14], [13, 14])
    """
    per_atom, kinds = np.asarray(energy) / np.asarray(sizes), np.asarray(kinds)
    order = np.lexsort((per_atom, kinds))
    known, start = np.unique(kinds[order], return_index=True)
    found: dict[Any, float] = {}
    for kind, rows in zip(known.tolist(), np.split(order, start[1:]), strict=False):
        values, bound = per_atom[rows], len(rows) and np.asarray(sizes)[rows[0]] >= MIN_ATOMS_BOUND
        if len(rows) and (np.ptp(values) >= ONE_ZERO or (bound and _are_in_two_groups(values))):
            found[kind] = float(np.ptp(values))
    if not found:
        return None
    kind = max(found, key=found.__getitem__)
    return (
        f"energies of {kind_label(kind if names is None else names[kind])} differ by up to {found[kind]:.4g} eV per "
        "atom: frames probably have different zeros or units, or some clusters are dissociated or compressed; give "
        "labels of one level of theory"
    )


def _are_in_two_groups(values: np.ndarray) -> bool:
    """Whether ascending energies per atom of a composition are in two narrow groups far apart."""
    below = int(np.diff(values, append=values[-1]).argmax())
    low, high = values[: below + 1], values[below + 1 :]
    narrow = len(high) and high[0] - low[-1] > max(EMPTY_RANGE, 2 * np.ptp(low), 2 * np.ptp(high))
    return bool(narrow and high[0] - low[-1] > np.abs(values).max() / 2)


def look_per_atom(energy: ArrayLike, sizes: ArrayLike) -> bool:
    """Whether energies of clusters of several sizes are probably energies per atom: they hardly change with the size.

    Args:
        energy: Energies in eV, ``[num_graphs]``.
        sizes: Number of atoms of each cluster, ``[num_graphs]``.

    Example:
        >>> sizes = np.array([20, 30, 40, 60])
        >>> look_per_atom(-2.8 * sizes, sizes), look_per_atom([-2.7, -2.8, -2.8, -2.9], sizes)
        (False, True)
    """
    energy, sizes = np.asarray(energy, dtype=np.float64), np.asarray(sizes)
    if len(energy) < 2 or not energy.mean() or not (energy / sizes).mean():
        return False
    variation, of_atoms = (float(np.std(values) / abs(np.mean(values))) for values in (energy, energy / sizes))
    return variation < min(of_atoms / 2, 0.2)


def energy_problem(energy: ArrayLike, sizes: ArrayLike, kinds: ArrayLike) -> str | None:
    """Message if energies are probably per atom, or have different zeros or units.

    Args:
        energy: Energies in eV, ``[num_graphs]``.
        sizes: Number of atoms of each cluster, ``[num_graphs]``.
        kinds: Size, or composition for alloys, of each cluster ``[num_graphs]``. Alloys are not checked for energies
            per atom, as their energies depend on the composition.
    """
    mixed = mixed_zeros(energy, sizes, kinds)
    if mixed is not None:
        return mixed
    return PER_ATOM if np.asarray(kinds).dtype.kind == "i" and look_per_atom(energy, sizes) else None


def _checked(*arrays: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    predicted, target, sizes = (np.asarray(array) for array in arrays)
    if not predicted.shape == target.shape == sizes.shape or predicted.ndim != 1:
        shapes = [list(array.shape) for array in (predicted, target, sizes)]
        raise ValueError(f"predicted, target and sizes must be of one shape [num_graphs], got {shapes}")
    if predicted.size == 0:
        raise InputError("no clusters to evaluate: check the files and the split")
    return predicted.astype(np.float64), target.astype(np.float64), sizes


def _rows(
    predicted: np.ndarray, target: np.ndarray, sizes: np.ndarray, kinds: ArrayLike | None
) -> list[dict[str, Any]]:
    kinds = sizes if kinds is None else np.asarray(kinds)
    rows = []
    for kind in np.unique(kinds).tolist():
        of_kind = kinds == kind
        errors = _errors(predicted[of_kind], target[of_kind], sizes[of_kind])
        del errors["rmse_mev_per_atom"]  # within a size it is proportional to rmse_kcal_mol
        correlation = spearman(predicted[of_kind], target[of_kind])
        named = {"composition": kind} if isinstance(kind, str) else {}
        size = int(sizes[of_kind][0])
        number = int(of_kind.sum())
        rows.append({"size": size, **named, "num_clusters": number, **errors, "spearman": correlation})
    return sorted(rows, key=lambda row: row["size"])


def _errors(predicted: np.ndarray, target: np.ndarray, sizes: np.ndarray) -> dict[str, float | int]:
    error = predicted - target
    per_atom = error / sizes
    return {
        "mae_kcal_mol": float(np.abs(error).mean() * KCAL_PER_MOL),
        "rmse_kcal_mol": float(np.sqrt(np.square(error).mean()) * KCAL_PER_MOL),
        "mae_mev_per_atom": float(np.abs(per_atom).mean() * MEV),
        "rmse_mev_per_atom": float(np.sqrt(np.square(per_atom).mean()) * MEV),
    }


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation of two arrays; NaN for fewer than two values, or if all values of an array are equal."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(spearmanr(a, b).statistic)


def shielding_metrics(predicted: ArrayLike, target: ArrayLike) -> dict[str, float | int]:
    """Errors over all atoms, and distances between the two distributions.

    Args:
        predicted: Shieldings in ppm, ``[num_atoms]``.
        target: Shieldings in ppm, ``[num_atoms]``.

    Returns:
        ``mae_ppm``, ``rmse_ppm``; ``wasserstein_ppm``, the 1-Wasserstein distance of the distributions (the mean
        difference of their sorted values); ``kolmogorov_smirnov``, the largest difference of their distribution
        functions; ``peak_ppm``, ``target_peak_ppm``, ``skewness`` and ``target_skewness`` (NaN if all values are
        equal); ``num_atoms``.

    Raises:
        InputError: If there are no atoms.
        ValueError: If the arrays differ in length.

    Example:
        >>> metrics = shielding_metrics([600.0, 610.0, 520.0], [610.0, 600.0, 500.0])
        >>> round(metrics["mae_ppm"], 2), round(metrics["wasserstein_ppm"], 2)
        (13.33, 6.67)
    """
    predicted, target = (np.asarray(array, dtype=np.float64) for array in (predicted, target))
    if predicted.shape != target.shape or predicted.ndim != 1:
        raise ValueError(f"values must be of one shape [num_atoms], got {predicted.shape} and {target.shape}")
    if not predicted.size:
        raise InputError("no atoms to evaluate: check the files and the split")
    error = predicted - target
    return {
        "mae_ppm": float(np.abs(error).mean()),
        "rmse_ppm": float(np.sqrt(np.square(error).mean())),
        "wasserstein_ppm": float(wasserstein_distance(predicted, target)),
        "kolmogorov_smirnov": float(ks_2samp(predicted, target, method="asymp").statistic),
        "peak_ppm": peak_position(predicted),
        "target_peak_ppm": peak_position(target),
        "skewness": _skewness(predicted),
        "target_skewness": _skewness(target),
        "num_atoms": int(predicted.size),
    }


def look_like_shifts(predicted: ArrayLike, labels: ArrayLike) -> bool:
    """Whether labels are probably chemical shifts: they decrease clearly where predicted shieldings increase.

    Args:
        predicted: Shieldings in ppm, ``[num_atoms]``.
        labels: Labels in ppm, ``[num_atoms]``.

    Example:
        >>> shielding = np.linspace(500.0, 600.0, 20)
        >>> look_like_shifts(shielding, 552.8 - shielding), look_like_shifts(shielding, shielding + 3.0)
        (True, False)
    """
    predicted, labels = (np.asarray(values, dtype=np.float64) for values in (predicted, labels))
    if len(labels) < MIN_ATOMS_FOR_SIGN or not (np.ptp(predicted) > 0 and np.ptp(labels) > 0):
        return False
    return float(np.corrcoef(predicted, labels)[0, 1]) < -0.5


def peak_position(values: ArrayLike) -> float:
    """Most frequent value: the maximum of a Gaussian kernel density estimate.

    The bandwidth is Silverman's, from the standard deviation or the interquartile range, whichever is smaller, so that
    a long tail does not smear out the peak.
    """
    values = np.asarray(values, dtype=np.float64)
    deviation, quartiles = values.std(), np.quantile(values, [0.25, 0.75])
    if values.size < 3 or deviation == 0 or np.ptp(quartiles) == 0:
        return float(np.median(values))
    width = 0.9 * min(deviation, np.ptp(quartiles) / 1.349) * values.size**-0.2
    density = gaussian_kde(values, bw_method=width / values.std(ddof=1))
    grid = np.linspace(values.min(), values.max(), 2001)
    return float(grid[density(grid).argmax()])


def _skewness(values: np.ndarray) -> float:
    return float(skew(values)) if np.ptp(values) > 0 else float("nan")


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
        coverage: Nominal coverage of the intervals.
        groups: Group of each prediction ``[num]``; by default each is a group of its own.
        unit: Unit of the reported widths.
        per_unit: Factor from the unit of the errors to the unit of the reported widths.

    Returns:
        ``coverage``, ``coverage_reached``, its ``standard_error`` (with clusters of a group drawn together; NaN for a
        single group), ``mean_width_kcal_mol`` (named after the unit) and ``num_groups``.

    Example:
        >>> metrics = interval_metrics([0.1, -0.3, 0.2, 0.0], [0.2, 0.2, 0.2, 0.2], 0.8)
        >>> metrics["coverage_reached"], round(metrics["standard_error"], 3)
        (0.75, 0.217)
    """
    error, half_width = np.asarray(error, dtype=np.float64), np.asarray(half_width, dtype=np.float64)
    inside = np.abs(error) <= half_width
    reached = float(inside.mean())
    _, group = np.unique(np.arange(len(error)) if groups is None else np.asarray(groups), return_inverse=True)
    residuals = np.bincount(group, weights=inside - reached) if group.any() else np.nan
    return {
        "coverage": coverage,
        "coverage_reached": reached,
        "standard_error": float(np.sqrt(np.square(residuals).sum()) / len(error)),
        f"mean_width_{unit}": float(2 * half_width.mean() * per_unit),
        "num_groups": int(group.max()) + 1,
    }


def reliability_rows(
    error: ArrayLike, half_width: Callable[[float], ArrayLike], groups: ArrayLike | None = None
) -> list[dict[str, float | int]]:
    """Compute :func:`interval_metrics` at the nominal :data:`COVERAGES` for which there are enough groups.

    Args:
        error: Errors of the predictions in eV ``[num]``.
        half_width: Function that returns the half widths of the intervals in eV ``[num]`` for a coverage.
        groups: Group of each prediction ``[num]``; by default each is a group of its own.
    """
    rows = []
    for coverage in COVERAGES:
        with suppress(InputError):
            rows.append(interval_metrics(error, half_width(coverage), coverage, groups))
    return rows
