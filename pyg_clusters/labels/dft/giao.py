"""First-order matrices of gauge-including atomic orbitals (GIAOs) in a magnetic field.

All are imaginary and antisymmetric; what is returned is their imaginary part, ``[3, num_functions, num_functions]``, by
component of the field. Theory: Wolinski, Hinton, Pulay, J. Am. Chem. Soc. 1990, 112, 8251.
"""

import numpy as np
import scipy.linalg

from pyg_clusters.labels.dft.fitted_integrals import FittedIntegrals
from pyg_clusters.labels.dft.integration_grid import IntegrationGrid, density_on_grid
from pyg_clusters.labels.dft.pyscf_import import gto, lib

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
    for values, points in grid.blocks():
        rho = density_on_grid(values, density)
        potential = grid.functional.eval_xc_eff(grid.xc, rho, deriv=1, xctype="GGA")[1] * grid.weights[points]
        scaled = np.einsum("xgi,xg->gi", values[1:], potential[1:]) + 0.5 * potential[0][:, None] * values[0]
        for axis in range(3):
            half = values[0].T @ (grid.coords[points, axis, None] * scaled)
            moments[axis] += half + half.T + values[0].T @ (potential[1 + axis][:, None] * values[0])
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
    root, fitting = integrals.metric_root, integrals.fitting_mol
    half = np.empty((integrals.num_fitting, num_occupied, num_functions))
    for start, end, block in integrals.blocks():
        half[start:end] = np.matmul(np.ascontiguousarray(occupied.T), block)
    density = 2 * lib.einsum("pml,lm->p", half, occupied)
    density = scipy.linalg.solve_triangular(root, density, lower=True, trans="T")
    flat = half.reshape(len(half), -1)
    half = _solved_in_place(root, flat).reshape(half.shape)
    three_centre = _ThreeCentre(mol, fitting)
    coulomb, exchange = np.zeros((2, 3, num_functions, num_functions))
    for atom, (_, _, start, end) in enumerate(fitting.aoslice_by_atom()):
        integral = three_centre.of_atom(atom)  # [3, end - start, num_functions, num_functions]
        coulomb -= np.tensordot(integral, density[start:end], (1, 0)).transpose(0, 2, 1)
        rows = half[start:end].reshape(-1, num_functions)
        for axis in range(3):
            part = lib.dot(integral[axis].reshape(-1, num_functions), occupied)
            part = part.reshape(end - start, num_functions, num_occupied).transpose(1, 0, 2)
            exchange[axis] += 2 * lib.dot(np.ascontiguousarray(part).reshape(num_functions, -1), rows)
    return coulomb, exchange - exchange.transpose(0, 2, 1)


def _solved_in_place(root: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """L⁻ᵀ times a matrix, in columns at a time, so that no second matrix is held."""
    for start in range(0, matrix.shape[1], COLUMNS_AT_ONCE):
        part = matrix[:, start : start + COLUMNS_AT_ONCE]
        part[:] = scipy.linalg.solve_triangular(root, part, lower=True, trans="T")
    return matrix


class _ThreeCentre:
    """Integrals (gμ ν|P), the derivative of the pair of GIAOs by the field, for P on one atom at a time."""

    def __init__(self, mol: "gto.Mole", fitting: "gto.Mole"):
        self.mol, self.fitting = mol, fitting
        both = mol + fitting
        both.cart = mol.cart
        self.name = "int3c2e_ig1_cart" if mol.cart else "int3c2e_ig1_sph"
        self.tables = both._atm, both._bas, both._env
        self.optimizer = gto.moleintor.make_cintopt(*self.tables, self.name)

    def of_atom(self, atom: int) -> np.ndarray:
        """The integrals ``[3, fitting functions of the atom, ν, μ]``."""
        first_shell, last_shell, start, end = self.fitting.aoslice_by_atom()[atom]
        shells = self.mol.nbas + first_shell, self.mol.nbas + last_shell
        result = np.zeros((3, end - start, self.mol.nao, self.mol.nao))
        for first, last, low, high in self.mol.aoslice_by_atom()[1:]:  # with functions of the atoms before
            part = gto.moleintor.getints(
                self.name, *self.tables, (first, last, 0, first, *shells), comp=3, aosym="s1", cintopt=self.optimizer
            ).transpose(0, 3, 2, 1)
            result[:, :, :low, low:high] = part
            result[:, :, low:high, :low] = -part.transpose(0, 1, 3, 2)
        return result
