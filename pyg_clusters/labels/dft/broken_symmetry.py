"""The broken-symmetry singlet below a closed-shell solution that is triplet-unstable."""

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from pyg_clusters.labels.dft.kohn_sham import ClosedShell, converge, fitted_potential
from pyg_clusters.labels.dft.pyscf_import import dft, lib

FIRST_ANGLE = 0.4
"""Largest rotation of an orbital in the start, in radian."""


@dataclass(frozen=True)
class BrokenSymmetry:
    """Properties of an open-shell singlet."""

    spin_squared: float
    """Expectation value of the squared spin of the Kohn-Sham determinant; 0 for a closed shell, 1 for a diradical."""
    lowering: float
    """Energy below the closed-shell solution in hartree."""


def broken_symmetry(solution: ClosedShell, vector: np.ndarray) -> BrokenSymmetry:
    """Follows a triplet instability to the broken-symmetry singlet.

    The unrestricted calculation of as many electrons of either spin starts from the closed-shell orbitals, rotated
    along the unstable direction, one way for one spin and the other way for the other. Where there is no lower
    solution it falls back to the closed shell, whose squared spin is zero.

    Args:
        solution: The closed-shell solution.
        vector: The unstable direction ``[num_virtual, num_valence]``, see :func:`triplet_stability`.

    Raises:
        LabellingError: If the calculation does not converge.
    """
    closed = solution.mf
    mf = dft.UKS(closed.mol, xc=closed.xc)
    mf.grids = closed.grids
    mf.conv_tol, mf.conv_tol_grad = closed.conv_tol, 1e-3
    mf.chkfile = None
    orbitals = np.array(rotated_orbitals(solution, vector))
    occupations = np.array([closed.mo_occ > 0, closed.mo_occ > 0]).astype(float)
    num_occupied = solution.occupied.shape[1]
    densities = orbitals[:, :, :num_occupied] @ orbitals[:, :, :num_occupied].swapaxes(1, 2)
    guess = lib.tag_array(densities, mo_coeff=orbitals, mo_occ=occupations)
    with fitted_potential(mf, solution.integrals, solution.grid):
        converge(mf, guess, "the broken-symmetry SCF")
    return BrokenSymmetry(float(mf.spin_square()[0]), float(closed.e_tot - mf.e_tot))


def rotated_orbitals(solution: ClosedShell, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orbitals ``[num_functions, num_functions]`` of both spins, rotated in opposite directions."""
    num_occupied = solution.occupied.shape[1]
    orbitals = np.hstack([solution.occupied, solution.virtual])
    generator = np.zeros((orbitals.shape[1],) * 2)
    generator[num_occupied:, num_occupied - vector.shape[1] : num_occupied] = vector
    generator -= generator.T
    rotation = scipy.linalg.expm(generator * FIRST_ANGLE / np.abs(vector).max())
    return orbitals @ rotation, orbitals @ rotation.T
