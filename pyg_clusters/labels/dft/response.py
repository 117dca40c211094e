"""The response of the orbitals to a magnetic field."""

import numpy as np

from pyg_clusters.labels.dft.kohn_sham import ClosedShell
from pyg_clusters.labels.dft.paired_matrices import AT_ONCE, PairedMatrices
from pyg_clusters.labels.dft.pyscf_import import lib
from pyg_clusters.labels.result import LabellingError

MAX_CYCLES = 40
LINEAR_DEPENDENCE = 1e-14

ENOUGH = 20.0
"""The residual may be this many times the tolerance in the end, which bounds steps, not residuals."""

CORRECTIONS = 3
"""Most solutions of the equations for what the one before has left over, as small gaps need them."""


class MagneticResponse:
    """Coupled-perturbed Kohn-Sham equations of an imaginary perturbation, with fitted exchange.

    The field changes no density in first order, so that the exact exchange alone couples the orbitals. Its integrals
    are held in single precision, which changes shieldings by less than 1e-4 ppm. They take the place of those of the
    solution, which are given up: the two together would need twice the memory.
    """

    def __init__(self, solution: ClosedShell):
        self.solution = solution
        self.num_occupied, self.num_virtual = solution.occupied.shape[1], solution.virtual.shape[1]
        num_fitting = len(solution.integrals.basis)
        self.inner = np.empty((num_fitting, self.num_occupied, self.num_occupied), np.float32)
        self.outer = np.empty((num_fitting, self.num_occupied, self.num_virtual), np.float32)
        self.empty = PairedMatrices(num_fitting, self.num_virtual)
        occupied, virtual = (part.astype(np.float32) for part in (solution.occupied, solution.virtual))
        orbitals = np.hstack([occupied, virtual])
        for start, end, half in solution.integrals.half_transforms(orbitals, last=True):
            np.matmul(half[:, : self.num_occupied], occupied, out=self.inner[start:end])
            np.matmul(half[:, : self.num_occupied], virtual, out=self.outer[start:end])
            self.empty.set_block(start, half[:, self.num_occupied :] @ virtual)

    def solve(self, first_order: np.ndarray, overlap: np.ndarray, tolerance: float) -> np.ndarray:
        """Orbitals in first order in the field, as coefficients of those of zeroth.

        Args:
            first_order: Kohn-Sham matrix in first order, ``[3, num_orbitals, num_occupied]``.
            overlap: Overlap matrix in first order, of the same shape.
            tolerance: Convergence.

        Returns:
            ``[3, num_orbitals, num_occupied]``.

        Raises:
            LabellingError: If the equations are not solved.
        """
        occupied, energies = self.solution.mf.mo_occ > 0, self.solution.mf.mo_energy
        inner = -0.5 * overlap[:, occupied]
        differences = energies[~occupied][:, None] - energies[occupied]
        right = (first_order - overlap * energies[occupied])[:, ~occupied] + self._induced_by_occupied(inner)
        right = (-right / differences).reshape(3, -1)

        def coupled(vectors: np.ndarray) -> np.ndarray:
            rotations = vectors.reshape(-1, self.num_virtual, self.num_occupied)
            return (self._induced(rotations) / differences).reshape(len(rotations), -1)

        found, left, limit = np.zeros_like(right), right, tolerance
        for _ in range(1 + CORRECTIONS):
            try:
                solved = lib.krylov(coupled, left, tol=limit, max_cycle=MAX_CYCLES, lindep=LINEAR_DEPENDENCE)
            except RuntimeError as error:
                raise LabellingError(
                    f"the coupled-perturbed equations did not converge in {MAX_CYCLES} cycles"
                ) from error
            found = found + solved.reshape(3, -1)
            left = right - found - coupled(found)
            residual = float(np.linalg.norm(left, axis=1).max())
            if residual < ENOUGH * tolerance:
                break
            limit = min(tolerance, 0.1 * residual)
        else:
            raise LabellingError(f"the coupled-perturbed equations did not converge, their residual is {residual:.1e}")
        result = np.empty_like(first_order)
        result[:, occupied] = inner
        result[:, ~occupied] = found.reshape(3, self.num_virtual, self.num_occupied)
        return result

    def _induced(self, rotations: np.ndarray) -> np.ndarray:
        """Change of the Kohn-Sham matrix by orbitals in first order, ``[n, num_virtual, num_occupied]`` both."""
        result = np.zeros(rotations.shape)
        for total, rotation in zip(result, rotations.astype(np.float32), strict=True):
            for start, end, changed in self.empty.products(rotation):
                outer = self.outer[start:end].reshape(-1, self.num_virtual)
                crossed = (outer @ rotation).reshape(end - start, self.num_occupied, self.num_occupied)
                crossed = crossed.transpose(0, 2, 1).reshape(-1, self.num_occupied)
                total += changed.reshape(-1, self.num_virtual).T @ self.inner[start:end].reshape(-1, self.num_occupied)
                total -= outer.T @ crossed
        return -self.solution.hybrid * result

    def _induced_by_occupied(self, inner: np.ndarray) -> np.ndarray:
        """The same by rotations among occupied orbitals ``[3, num_occupied, num_occupied]``."""
        result = np.zeros((3, self.num_virtual, self.num_occupied))
        rotations = (inner - inner.transpose(0, 2, 1)).astype(np.float32)
        for start in range(0, len(self.inner), AT_ONCE):
            columns, outer = (part[start : start + AT_ONCE] for part in (self.inner, self.outer))
            for total, rotation in zip(result, rotations, strict=True):
                changed = columns.reshape(-1, self.num_occupied) @ rotation.T  # [fitting, occupied, occupied]
                changed = changed.reshape(columns.shape).transpose(0, 2, 1).reshape(-1, self.num_occupied)
                total += outer.reshape(-1, self.num_virtual).T @ changed
        return -self.solution.hybrid * result
