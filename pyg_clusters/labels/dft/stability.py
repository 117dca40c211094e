"""Triplet stability of closed-shell solutions, and broken-symmetry singlets."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from pyg_clusters.labels.dft import dft, lib
from pyg_clusters.labels.dft.kohn_sham import ClosedShell, converge, fitted_potential
from pyg_clusters.labels.labellers import LabellingError

TOLERANCE = 2e-3
"""Convergence criterion of the residual norm in hartree; the error of the eigenvalue is second-order in it."""

MAX_CYCLES = 60
SMALLEST_DENOMINATOR = 1e-2
NUM_GUESSES = 3


def triplet_stability(solution: ClosedShell) -> tuple[float, np.ndarray]:
    r"""Compute the lowest eigenvalue and eigenvector of the triplet stability matrix.

    The matrix is the real orbital Hessian of a closed-shell solution for orbital rotations of opposite sign for the two
    spins (Seeger, Pople, J. Chem. Phys. 1977, 66, 3045; Bauernschmitt, Ahlrichs, J. Chem. Phys. 1996, 104, 9047),

    .. math:: (A + B)_{ai,bj} = \delta_{ab} \delta_{ij} (\varepsilon_a - \varepsilon_i)
        + 2 (ai|f_{\uparrow\uparrow} - f_{\uparrow\downarrow}|bj) - c_x [(ab|ij) + (aj|ib)].

    If the eigenvalue is negative, there is a broken-symmetry solution of lower energy. The orbitals of the noble-gas
    cores are excluded.

    Returns:
        The eigenvalue in hartree, and the eigenvector ``[num_virtual, num_valence]``.

    Raises:
        LabellingError: If the eigenvalue does not converge.
    """
    hessian = _TripletHessian(solution)
    value, vector = lowest_eigenpair(hessian, hessian.differences.ravel())
    return value, vector.reshape(hessian.differences.shape)


def lowest_eigenpair(product: Callable[[np.ndarray], np.ndarray], diagonal: np.ndarray) -> tuple[float, np.ndarray]:
    """Compute the lowest eigenpair of a symmetric matrix by Davidson's method (J. Comput. Phys. 1975, 17, 87).

    Args:
        product: Function that multiplies the matrix with a vector.
        diagonal: Approximate diagonal of the matrix.

    Example:
        >>> matrix = np.diag([1.0, 2.0, 3.0]) - 0.1
        >>> value, _ = lowest_eigenpair(lambda vector: matrix @ vector, matrix.diagonal())
        >>> round(abs(float(value - np.linalg.eigvalsh(matrix)[0])), 4)
        0.0

    Raises:
        LabellingError: If the eigenvalue does not converge.
    """
    guesses = np.argsort(diagonal)[:NUM_GUESSES]
    space = np.zeros((len(guesses), len(diagonal)))
    space[np.arange(len(guesses)), guesses] = 1.0
    images = np.array([product(vector) for vector in space])
    for _ in range(MAX_CYCLES):
        projected = space @ images.T
        values, vectors = np.linalg.eigh((projected + projected.T) / 2)
        value, vector = float(values[0]), vectors[:, 0] @ space
        residual = vectors[:, 0] @ images - value * vector
        if np.linalg.norm(residual) < TOLERANCE:
            return value, vector
        denominator = diagonal - value
        new = residual / np.where(np.abs(denominator) < SMALLEST_DENOMINATOR, SMALLEST_DENOMINATOR, denominator)
        for _ in range(2):  # repeated orthogonalisation, to rounding error
            new -= space.T @ (space @ new)
        new /= np.linalg.norm(new)
        space = np.vstack([space, new])
        images = np.vstack([images, product(new)])
    raise LabellingError(f"the test of stability did not converge in {MAX_CYCLES} cycles")


class _TripletHessian:
    """Product of the triplet stability matrix with a vector ``[num_virtual * num_valence]``."""

    def __init__(self, solution: ClosedShell):
        self.solution = solution
        self.valence = np.ascontiguousarray(solution.occupied[:, -solution.num_valence :])
        self.virtual = np.ascontiguousarray(solution.virtual)
        energies, occupations = solution.mf.mo_energy, solution.mf.mo_occ
        valence_energies = energies[occupations > 0][-solution.num_valence :]
        self.differences = energies[occupations == 0][:, None] - valence_energies
        self.products = solution.integrals.fit(self.valence)
        self.on_grid = list(self._on_grid())

    def __call__(self, vector: np.ndarray) -> np.ndarray:
        rotation = vector.reshape(self.differences.shape)
        rotated = self.virtual @ rotation  # [num_functions, num_valence]
        exchange = self.products.exchange(rotated)
        total = self._kernel(rotated) - self.solution.hybrid * (exchange + exchange.T) @ self.valence
        image = self.virtual.T @ total
        return (image + self.differences * rotation).ravel()

    def _on_grid(self):
        """Yield, block by block, the valence orbitals and the weighted spin-density kernel on the grid."""
        grid, density = self.solution.grid, self.solution.density
        for block in grid.blocks():
            rho = block.density(density) / 2
            kernel = grid.functional.eval_xc_eff(grid.xc, np.array([rho, rho]), deriv=2, xctype="GGA", spin=1)[2]
            spin_kernel = 0.5 * (kernel[0, :, 0] - kernel[0, :, 1]) * block.weights
            yield block.values @ self.valence[block.functions].astype(np.float32), spin_kernel.astype(np.float32)

    def _kernel(self, rotated: np.ndarray) -> np.ndarray:
        """Exchange-correlation contribution ``[num_functions, num_valence]``."""
        result = np.zeros_like(rotated)
        for block, (orbitals, kernel) in zip(self.solution.grid.blocks(), self.on_grid, strict=True):
            changed = block.values @ rotated[block.functions].astype(np.float32)
            rho = 4 * np.einsum("gi,xgi->xg", orbitals[0], changed)
            rho[1:] += 4 * np.einsum("xgi,gi->xg", orbitals[1:], changed[0])
            potential = np.einsum("xyg,yg->xg", kernel, rho)
            total = block.values[0].T @ np.einsum("xg,xgi->gi", potential, orbitals)
            for gradient, part in zip(block.values[1:], potential[1:], strict=True):
                total += gradient.T @ (part[:, None] * orbitals[0])
            result[block.functions] += total
        return result


FIRST_ANGLE = 0.4  # maximum rotation angle of the initial orbitals in radian


@dataclass(frozen=True)
class BrokenSymmetry:
    """Properties of an open-shell singlet."""

    #: Expectation value of the squared spin of the Kohn-Sham determinant; 0 for a closed shell, 1 for a diradical.
    spin_squared: float
    lowering: float  #: Energy relative to the closed-shell solution in hartree, positive if lower.


def broken_symmetry(solution: ClosedShell, vector: np.ndarray) -> BrokenSymmetry:
    """Follow a triplet instability to the broken-symmetry singlet.

    An unrestricted calculation with equal numbers of spin-up and spin-down electrons starts from the closed-shell
    orbitals, rotated along the unstable direction with opposite signs for the two spins. If there is no lower solution,
    it converges to the closed shell, whose squared spin is zero.

    Args:
        solution: Closed-shell solution.
        vector: Unstable direction ``[num_virtual, num_valence]``, see :func:`triplet_stability`.

    Raises:
        LabellingError: If the self-consistent field does not converge.
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
    """Rotate the orbitals of the two spins in opposite directions; returns ``[num_functions, num_orbitals]`` each."""
    num_occupied = solution.occupied.shape[1]
    orbitals = np.hstack([solution.occupied, solution.virtual])
    generator = np.zeros((orbitals.shape[1],) * 2)
    generator[num_occupied:, num_occupied - vector.shape[1] : num_occupied] = vector
    generator -= generator.T
    rotation = scipy.linalg.expm(generator * FIRST_ANGLE / np.abs(vector).max())
    return orbitals @ rotation, orbitals @ rotation.T
