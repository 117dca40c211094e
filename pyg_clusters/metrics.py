"""Errors and rank correlations of predicted cluster energies.

Energies come in as eV per cluster. Errors are reported per cluster in kcal/mol and per atom in meV. Clusters of
different sizes are compared by their errors only; ranks are compared within a size (of alloys, within a composition),
where they decide which isomer goes to a DFT calculation.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import spearmanr

from pyg_clusters.errors import InputError
from pyg_clusters.units import KCAL_PER_MOL, MEV

MIN_CLUSTERS_FOR_RANKS: int = 5
"""Fewest clusters of a size whose rank correlation enters the mean over sizes."""


def energy_metrics(
    predicted: ArrayLike, target: ArrayLike, sizes: ArrayLike, kinds: ArrayLike | None = None
) -> dict[str, float | int]:
    """Errors over all clusters, and the mean rank correlation within a size or composition.

    Args:
        predicted: Energies in eV, ``[num_graphs]``.
        target: Energies in eV, ``[num_graphs]``.
        sizes: Number of atoms of each cluster, ``[num_graphs]``.
        kinds: What ranks are compared within, ``[num_graphs]``: the compositions of alloys
            (:func:`~pyg_clusters.composition.comparable`); by default the sizes.

    Returns:
        ``mae_kcal_mol`` and ``rmse_kcal_mol`` per cluster, ``mae_mev_per_atom`` and ``rmse_mev_per_atom`` (of the
        error divided by the size of its cluster), ``num_clusters``, and ``spearman_within_size``: the mean of
        Spearman's rank correlation over the sizes (compositions) with at least five clusters, weighted by their
        number; not-a-number where there is no such size.

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
    return {
        **_errors(predicted, target, sizes),
        "num_clusters": len(sizes),
        "spearman_within_size": float(mean),
    }


def metrics_by_size(
    predicted: ArrayLike, target: ArrayLike, sizes: ArrayLike, kinds: ArrayLike | None = None
) -> list[dict[str, Any]]:
    """Errors and rank correlation of each cluster size, or composition of alloys, a row for each in increasing order.

    The arguments and errors are those of :func:`energy_metrics`.

    Returns:
        Rows of ``size`` (and ``composition``, if the kinds are compositions), ``num_clusters``, ``mae_kcal_mol``,
        ``rmse_kcal_mol``, ``mae_mev_per_atom`` and ``spearman`` (not-a-number for a single cluster, or where all
        energies are equal).
    """
    return _rows(*_checked(predicted, target, sizes), kinds)


def _checked(*arrays: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    predicted, target, sizes = (np.asarray(array) for array in arrays)
    if not predicted.shape == target.shape == sizes.shape or predicted.ndim != 1:
        shapes = [list(array.shape) for array in (predicted, target, sizes)]
        raise ValueError(f"predicted, target and sizes must be of one shape [num_graphs], got {shapes}")
    if predicted.size == 0:
        raise InputError("no clusters to compute errors of: check the files and the split that were chosen")
    return predicted.astype(np.float64), target.astype(np.float64), sizes


def _rows(
    predicted: np.ndarray, target: np.ndarray, sizes: np.ndarray, kinds: ArrayLike | None
) -> list[dict[str, Any]]:
    kinds = sizes if kinds is None else np.asarray(kinds)
    rows = []
    for kind in np.unique(kinds).tolist():
        chosen = kinds == kind
        errors = _errors(predicted[chosen], target[chosen], sizes[chosen])
        del errors["rmse_mev_per_atom"]  # within a size it is proportional to rmse_kcal_mol
        correlation = _spearman(predicted[chosen], target[chosen])
        named = {"composition": kind} if isinstance(kind, str) else {}
        size = int(sizes[chosen][0])
        number = int(chosen.sum())
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


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(spearmanr(a, b).statistic)
