"""Errors of predicted shieldings, and how their distribution compares.

Values come in as ppm per atom. An error judges each atom; a distribution, of which a spectrum is made, forgets which
atom is which.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import gaussian_kde, ks_2samp, skew, wasserstein_distance

from pyg_clusters.errors import InputError


def shielding_metrics(predicted: ArrayLike, target: ArrayLike) -> dict[str, float | int]:
    """Errors over all atoms, and distances between the two distributions.

    Args:
        predicted: Shieldings in ppm, ``[num_atoms]``.
        target: Shieldings in ppm, ``[num_atoms]``.

    Returns:
        ``mae_ppm``, ``rmse_ppm``; ``wasserstein_ppm``, the 1-Wasserstein distance of the distributions (the mean
        difference of their sorted values); ``kolmogorov_smirnov``, the largest difference of their distribution
        functions; ``peak_ppm``, ``target_peak_ppm``, ``skewness`` and ``target_skewness`` (not-a-number where all
        values are equal); ``num_atoms``.

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
        raise InputError("no atoms to compute errors of: check the files and the split that were chosen")
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


def peak_position(values: ArrayLike) -> float:
    """The most frequent value, in the unit of the values: the maximum of a Gaussian kernel density.

    The width of a kernel is Silverman's, of the standard deviation or the interquartile range, whichever is the
    narrower, so that a long tail does not smear the peak. Where all values are equal it is their value.
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
