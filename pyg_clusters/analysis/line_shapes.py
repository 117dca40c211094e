"""NMR spectra of clusters from the shieldings of their atoms."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from ase.units import kB
from numpy.typing import ArrayLike
from scipy.signal import fftconvolve

from pyg_clusters.errors import InputError
from pyg_clusters.units import SODIUM_REFERENCE_PPM

Shape = Literal["gaussian", "lorentzian"]

POINTS_PER_WIDTH: int = 20  # number of points of the axis per line width

REACH: dict[str, float] = {"gaussian": 3.0, "lorentzian": 30.0}
"""Cutoff of a line in widths, beyond which its intensity is below 1/3000 of the maximum."""

MAX_POINTS: int = 2_000_000  # maximum number of points of an axis

GAUSSIAN_DEVIATIONS: float = float(2 * np.sqrt(2 * np.log(2)))
"""Full width at half maximum of a Gaussian in standard deviations."""


@dataclass
class Spectrum:
    """NMR spectrum, normalised to an integral of one."""

    #: Shifts in ppm, evenly spaced and increasing, ``[num_points]``. (Figures show them increasing to the left.)
    shift: np.ndarray
    intensity: np.ndarray  #: Intensity per ppm ``[num_points]``.

    @property
    def peak(self) -> float:
        """Shift of maximum intensity in ppm."""
        return float(self.shift[self.intensity.argmax()])


def shifts(shielding: ArrayLike, reference: float = SODIUM_REFERENCE_PPM) -> np.ndarray:
    r"""Convert shieldings to chemical shifts :math:`\delta = \sigma_{ref} - \sigma` in ppm.

    Args:
        shielding: Shieldings in ppm, of any shape.
        reference: Shielding of the standard at the same level of theory in ppm, by default that of 23Na in hydrated
            Na⁺ (:data:`~pyg_clusters.units.SODIUM_REFERENCE_PPM`, see its limits there).
    """
    return reference - np.asarray(shielding, dtype=np.float64)


def shift_axis(shift: ArrayLike, width: float, shape: Shape = "gaussian") -> np.ndarray:
    """Create an axis that covers the lines at all given shifts, ``[num_points]`` in ppm.

    To compare spectra on a common axis, pass the shifts of all of them.

    Raises:
        InputError: If there are no shifts, one is not finite, or the width is not positive or far too small.
    """
    shift = np.asarray(shift, dtype=np.float64).ravel()
    if shape not in get_args(Shape):
        raise InputError(f"the shape of a line must be one of {', '.join(get_args(Shape))}, got {shape!r}")
    if not (np.isfinite(width) and width > 0):
        raise InputError(f"the width of a line must be positive (in ppm), got {width:g}")
    if not shift.size or not np.isfinite(shift).all():
        raise InputError("a spectrum needs at least one shift, and all shifts must be finite")
    step = width / POINTS_PER_WIDTH
    start = np.floor(shift.min() / step - REACH[shape] * POINTS_PER_WIDTH)
    end = np.ceil(shift.max() / step + REACH[shape] * POINTS_PER_WIDTH)
    if end - start > MAX_POINTS:
        raise InputError(f"lines of {width:g} ppm are too narrow for a range of {np.ptp(shift):.0f} ppm; widen them")
    return step * np.arange(start, end + 1)


def broaden(
    shift: ArrayLike,
    width: float,
    shape: Shape = "gaussian",
    *,
    weights: ArrayLike | None = None,
    axis: np.ndarray | None = None,
) -> Spectrum:
    """Broaden shifts to a normalised spectrum, with lines of the same width and shape for all atoms.

    Each shift is distributed over the two nearest points of the axis, which preserves the mean, and the result is
    convolved with the line shape. The cost hardly depends on the number of atoms.

    Args:
        shift: Shift of each atom in ppm ``[num_atoms]``.
        width: Full width at half maximum of a line in ppm. It is an empirical parameter for all broadening of a
            measured spectrum (23Na has a quadrupole moment).
        shape: ``"gaussian"`` or ``"lorentzian"``.
        weights: Non-negative weight of each atom ``[num_atoms]``; equal by default.
        axis: Common axis from :func:`shift_axis`, to compare spectra.

    Raises:
        InputError: As :func:`shift_axis`, if a shift is not on the axis, or if no weight is positive.

    Example:
        >>> lines = broaden([-60.0, -60.0, 0.0], width=10.0)
        >>> lines.peak, round(float(np.trapezoid(lines.intensity, lines.shift)), 6)
        (-60.0, 1.0)
    """
    shift = np.asarray(shift, dtype=np.float64).ravel()
    axis = shift_axis(shift, width, shape) if axis is None else axis
    weights = np.ones_like(shift) if weights is None else np.asarray(weights, dtype=np.float64).ravel()
    if weights.shape != shift.shape or not (weights >= 0).all() or not weights.sum() > 0:
        raise InputError("give one weight per shift, none of them negative and at least one positive")
    step = axis[1] - axis[0]
    position = (shift - axis[0]) / step
    if not ((position >= 0) & (position <= len(axis) - 1)).all():
        raise InputError("a shift is not on the axis; create the axis with shift_axis from all shifts")
    left = np.minimum(position.astype(np.int64), len(axis) - 2)
    right_share = position - left
    lines = np.bincount(left, weights * (1 - right_share), len(axis))
    lines += np.bincount(left + 1, weights * right_share, len(axis))
    reach = int(REACH[shape] * POINTS_PER_WIDTH)
    intensity = fftconvolve(lines, _line(step * np.arange(-reach, reach + 1), width, shape), mode="same")
    intensity = intensity.clip(min=0.0)
    return Spectrum(axis, intensity / np.trapezoid(intensity, axis))


def overlap(first: Spectrum, second: Spectrum) -> float:
    r"""Compute the overlap :math:`\int \min(f, g)\, \mathrm{d}\delta` of two spectra: 1 if equal, 0 if disjoint.

    Raises:
        ValueError: If their axes differ.
    """
    if not np.array_equal(first.shift, second.shift):
        raise ValueError("spectra can be compared only on a common axis: use one shift_axis for both")
    return float(np.trapezoid(np.minimum(first.intensity, second.intensity), first.shift))


def boltzmann_weights(energy: ArrayLike, temperature: float) -> np.ndarray:
    r"""Compute Boltzmann populations of isomers, :math:`w \propto e^{-E / k_B T}`, ``[num_isomers]``, with sum 1.

    Free energies are approximated by potential energies, without vibrations, rotations and symmetry numbers.

    Args:
        energy: Energies in eV ``[num_isomers]`` of isomers of one composition.
        temperature: Temperature in K.

    Raises:
        InputError: If the temperature is not positive, or an energy not finite.

    Example:
        >>> boltzmann_weights([-1.0, -1.0, 0.0], temperature=300.0).round(3).tolist()
        [0.5, 0.5, 0.0]
    """
    energy = np.asarray(energy, dtype=np.float64)
    if not (np.isfinite(temperature) and temperature > 0):
        raise InputError(f"the temperature must be positive (in K), got {temperature:g}")
    if not np.isfinite(energy).all():
        raise InputError("energies of isomers must be finite")
    weights = np.exp(-(energy - energy.min(initial=np.inf)) / (kB * temperature))
    return weights / weights.sum()


def _line(distance: np.ndarray, width: float, shape: Shape) -> np.ndarray:
    """Line at zero, not normalised."""
    if shape == "gaussian":
        return np.exp(-0.5 * (distance * GAUSSIAN_DEVIATIONS / width) ** 2)
    return 1 / (1 + (2 * distance / width) ** 2)
