"""Shielding tensors of a closed-shell solution."""

import numpy as np

from pyg_clusters.labels.dft import giao
from pyg_clusters.labels.dft.kohn_sham import ClosedShell
from pyg_clusters.labels.dft.response import MagneticResponse

FINE_STRUCTURE = 7.2973525643e-3
"""The fine-structure constant (CODATA 2022)."""

PPM = FINE_STRUCTURE**2 * 1e6
"""The shielding of one atomic unit in ppm."""


def shielding_tensors(solution: ClosedShell, tolerance: float) -> np.ndarray:
    """Shielding tensors ``[num_atoms, 3, 3]`` in ppm with GIAOs; the field is along the row, the moment the column.

    Every two-electron term has the same density fitting, so that the result does not depend on where the cluster
    lies.

    Args:
        solution: The closed-shell solution, with density fitting; its integrals are used up.
        tolerance: Convergence of the coupled-perturbed equations.

    Raises:
        LabellingError: If these do not converge.
    """
    mol, coefficients, occupied = solution.mf.mol, solution.mf.mo_coeff, solution.occupied
    coulomb, exchange = giao.coulomb_exchange(solution.integrals, mol, occupied)
    kohn_sham = giao.one_electron(mol) + coulomb - 0.5 * solution.hybrid * exchange
    kohn_sham -= giao.exchange_correlation(solution.grid, solution.density)
    first_order, overlap = (
        np.array([coefficients.T @ matrix @ occupied for matrix in matrices])
        for matrices in (kohn_sham, giao.overlap(mol))
    )
    orbitals = MagneticResponse(solution).solve(first_order, overlap, tolerance)
    changes = np.array([2 * coefficients @ part @ occupied.T for part in orbitals])
    return PPM * (diamagnetic(mol, solution.density) + paramagnetic(mol, changes))


def diamagnetic(mol, density: np.ndarray) -> np.ndarray:
    """Part of the density in zeroth order, ``[num_atoms, 3, 3]`` in atomic units."""
    parts = []
    for position in mol.atom_coords():
        with mol.with_rinv_origin(position):
            field = np.einsum("xij,ij->x", mol.intor("int1e_giao_a11part", comp=9), density).reshape(3, 3)
            gauge = np.einsum("xij,ij->x", mol.intor("int1e_a01gp", comp=9), density).reshape(3, 3)
        parts.append(field - np.eye(3) * field.trace() + gauge)
    return np.array(parts)


def paramagnetic(mol, changes: np.ndarray) -> np.ndarray:
    """Part of the orbitals in first order, ``[num_atoms, 3, 3]`` in atomic units.

    Args:
        mol: The cluster.
        changes: Density matrices in first order without their conjugates, ``[3, num_functions, num_functions]``.
    """
    parts = []
    for position in mol.atom_coords():
        with mol.with_rinv_origin(position):
            moment = mol.intor_asymmetric("int1e_prinvxp", 3)
        parts.append(2 * np.einsum("xji,yij->xy", changes, moment))
    return np.array(parts)
