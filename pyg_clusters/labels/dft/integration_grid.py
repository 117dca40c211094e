"""Exchange and correlation on the integration grid."""

from collections.abc import Iterator

import numpy as np

from pyg_clusters.errors import InputError
from pyg_clusters.labels.dft.pyscf_import import dft

POINTS_AT_ONCE = 8192


class IntegrationGrid:
    """The points of a calculation, with the values and gradients of the basis functions, kept where memory allows.

    Args:
        mf: A calculation with a functional of the gradient of the density.
        keep: Hold the values instead of computing them anew each time.

    Raises:
        InputError: If the functional is of another kind.
    """

    def __init__(self, mf: "dft.rks.RKS", keep: bool = False):
        if mf._numint._xc_type(mf.xc) != "GGA" or mf._numint.rsh_and_hybrid_coeff(mf.xc)[0]:
            raise InputError(f"{mf.xc} is no (hybrid) functional of the density's gradient; choose one, such as b3lyp")
        if mf.grids.coords is None:
            mf.grids.build()
        self.mol, self.functional, self.xc = mf.mol, mf._numint, mf.xc
        self.coords, self.weights = mf.grids.coords, mf.grids.weights
        self._kept: dict[int, np.ndarray] | None = {} if keep else None

    def blocks(self) -> Iterator[tuple[np.ndarray, slice]]:
        """Values of the functions and their gradients ``[4, points, num_functions]``, and which points."""
        for start in range(0, len(self.weights), POINTS_AT_ONCE):
            points = slice(start, min(start + POINTS_AT_ONCE, len(self.weights)))
            if self._kept is not None and start in self._kept:
                values = self._kept[start]
            else:
                values = dft.numint.eval_ao(self.mol, self.coords[points], deriv=1)
            if self._kept is not None:
                self._kept[start] = values
            yield values, points

    def forget(self):
        """Gives the memory of kept values back."""
        if self._kept:
            self._kept.clear()

    def potential(self, densities: np.ndarray) -> tuple[float, np.ndarray]:
        """Energy in hartree and potential matrix of a density.

        Args:
            densities: The density matrix ``[num_functions, num_functions]``, or those of both spins ``[2, ...]``; the
                potential has the same shape.
        """
        spin = densities.ndim - 2
        matrices = np.zeros_like(densities)
        energy = 0.0
        for values, points in self.blocks():
            weights = self.weights[points]
            rho = (
                np.array([density_on_grid(values, d) for d in densities])
                if spin
                else density_on_grid(values, densities)
            )
            per_electron, potential = self.functional.eval_xc_eff(self.xc, rho, deriv=1, xctype="GGA", spin=spin)[:2]
            energy += float(((rho[0, 0] + rho[1, 0]) if spin else rho[0]) @ (weights * per_electron))
            if spin:
                for matrix, part in zip(matrices, potential, strict=True):
                    matrix += _half_potential(values, part * weights)
            else:
                matrices += _half_potential(values, potential * weights)
        return energy, matrices + matrices.swapaxes(-1, -2)


def density_on_grid(values: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Density and its gradient ``[4, points]`` of a symmetric density matrix."""
    contracted = values[0] @ density
    rho = np.einsum("gi,xgi->xg", contracted, values)
    rho[1:] *= 2
    return rho


def _half_potential(values: np.ndarray, weighted: np.ndarray) -> np.ndarray:
    """Half of the potential matrix; its transpose is the other half. ``weighted``: potential times weight, [4, g]."""
    scaled = values[0] * (0.5 * weighted[0])[:, None]
    for gradient, potential in zip(values[1:], weighted[1:], strict=True):
        scaled += gradient * potential[:, None]
    return values[0].T @ scaled
