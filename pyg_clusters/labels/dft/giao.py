"""First-order matrices of gauge-including atomic orbitals (GIAOs) in a magnetic field.

All are imaginary and antisymmetric; what is returned is their imaginary part, ``[3, num_functions, num_functions]``, by
component of the field. Theory: Wolinski, Hinton, Pulay, J. Am. Chem. Soc. 1990, 112, 8251.
"""

import numpy as np
import scipy.linalg

from pyg_clusters.labels.dft.fitted_integrals import FittedIntegrals
from pyg_clusters.labels.dft.fitting_basis import FittingBasis
from pyg_clusters.labels.dft.integration_grid import IntegrationGrid
from pyg_clusters.labels.dft.pyscf_import import gto

COLUMNS_AT_ONCE = 8192


def overlap(mol: "gto.Mole") -> np.ndarray:
    """Overlap matrix in first order."""
    return -mol.intor_asymmetric("int1e_igovlp", 3)


def one_electron(mol: "gto.Mole") -> np.ndarray:
    """Angular momentum, kinetic energy and attraction by the nuclei in first order."""
    total = -0.5 * mol.intor("int1e_giao_irjxp", 3)
    total -= mol.intor_asymmetric("int1e_ignuc", 3)
    total -= mol.intor("int1e_igkin", 3)
    return total


def exchange_correlation(grid: IntegrationGrid, density: np.ndarray) -> np.ndarray:
    r"""Matrix of the exchange-correlation potential in first order.

    A product of two GIAOs differs from that of the functions by a phase that is linear in r, so that

    .. math:: V_k = -\tfrac12 \sum_{ab} \epsilon_{kab} (R_\mu - R_\nu)_a [M_b + N_b],

    where :math:`M_b = \int r_b [v \chi_\mu \chi_\nu + \mathbf w \cdot \nabla(\chi_\mu \chi_\nu)]`,
    :math:`N_b = \int w_b \chi_\mu \chi_\nu`, with v and w the derivatives of the energy by density and gradient.
    """
    moments = np.zeros((3, *density.shape))
    for block in grid.blocks():
        potential = grid.functional.eval_xc_eff(grid.xc, block.density(density), deriv=1, xctype="GGA")[1]
        potential *= block.weights
        scaled, functions = block.weighted(potential), np.ix_(block.functions, block.functions)
        for moment, coords, part in zip(moments, block.coords.T, potential[1:], strict=True):
            # half of the matrix, as the other half is its transpose
            halves = coords[:, None] * scaled + 0.5 * part[:, None] * block.values[0]
            moment[functions] += block.values[0].T @ halves.astype(np.float32)
    moments += moments.transpose(0, 2, 1)
    mol = grid.mol
    atom_of_function = np.repeat(np.arange(mol.natm), np.diff(mol.aoslice_by_atom()[:, 2:], axis=1).ravel())
    centres = mol.atom_coords()[atom_of_function]
    apart = (centres[:, None] - centres[None]).transpose(2, 0, 1)
    return -0.5 * np.cross(apart, moments, axis=0)


def coulomb_exchange(
    integrals: FittedIntegrals, mol: "gto.Mole", occupied: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    r"""Coulomb and exchange matrices in first order, with the integrals of the density fitting.

    The fitting functions are real and do not depend on the field, so that this is the derivative of the fitted energy
    and does not depend on the origin.

    Args:
        integrals: The fitted integrals B.
        mol: The cluster.
        occupied: Occupied orbitals ``[num_functions, num_occupied]``.
    """
    num_functions, num_occupied = occupied.shape
    occupied = occupied.astype(np.float32)
    half = np.empty((len(integrals.basis), num_occupied * num_functions), np.float32)
    for start, end, block in integrals.half_transforms(occupied):
        half[start:end] = block.reshape(end - start, -1)
    _solve_in_place(integrals.basis.metric_root, half)
    density = 2 * half @ occupied.T.ravel()
    three_centre = _ThreeCentre(mol, integrals.basis)
    coulomb, exchange = np.zeros((2, 3, num_functions, num_functions))
    for atom, (start, end) in enumerate(integrals.basis.atoms):
        rows = half[start:end].reshape(-1, num_functions)
        for axis, integral in enumerate(three_centre.of_atom(atom)):  # [end - start, num_functions, num_functions]
            coulomb[axis] -= np.tensordot(density[start:end], integral, 1).T
            part = integral.reshape(-1, num_functions) @ occupied
            part = part.reshape(end - start, num_functions, num_occupied).transpose(1, 0, 2)
            exchange[axis] += 2 * part.reshape(num_functions, -1) @ rows
    return coulomb, exchange - exchange.transpose(0, 2, 1)


def _solve_in_place(root: np.ndarray, matrix: np.ndarray):
    """L⁻ᵀ times a matrix, in double precision and so many columns at a time that no second matrix is held."""
    for start in range(0, matrix.shape[1], COLUMNS_AT_ONCE):
        part = matrix[:, start : start + COLUMNS_AT_ONCE]
        part[:] = scipy.linalg.blas.dtrsm(1.0, root, part.T.astype(np.float64, order="F"), side=1, lower=1).T


class _ThreeCentre:
    """Integrals (gμ ν|P), the derivative of the pair of GIAOs by the field, for P on one atom at a time."""

    def __init__(self, mol: "gto.Mole", basis: FittingBasis):
        self.mol, self.basis = mol, basis
        self.integrals = basis.integrals("int3c2e_ig1")

    def of_atom(self, atom: int) -> np.ndarray:
        """The integrals ``[3, fitting functions of the atom, ν, μ]``."""
        start, end = self.basis.atoms[atom]
        result = np.zeros((3, end - start, self.mol.nao, self.mol.nao), np.float32)
        for first, last, low, high in self.mol.aoslice_by_atom()[1:]:  # with functions of the atoms before
            for component, part in zip(result, self.integrals.block((first, last), (0, first), atom, 3), strict=True):
                component[:, :low, low:high] = part
                np.negative(component[:, :low, low:high].transpose(0, 2, 1), out=component[:, low:high, :low])
        return result
