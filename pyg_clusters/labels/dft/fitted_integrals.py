"""Coulomb and exchange matrices from density-fitted integrals that are held in memory."""

from collections.abc import Iterator

import numpy as np
import scipy.linalg

from pyg_clusters.labels.dft.fitting_basis import FittingBasis
from pyg_clusters.labels.dft.pyscf_import import gto, scf

FITTING_AT_ONCE = 128
"""Fitting functions of one array of integrals."""

BUFFER = 2e8
"""Bytes of integrals that are computed at once."""


class FittedIntegrals:
    r"""The tensor B, where :math:`(\mu\nu|\lambda\sigma) = \sum_P B_{P\mu\nu} B_{P\lambda\sigma}`.

    Its symmetric matrices are held in single precision, two of them in one array of a row more than columns: of rows
    0 to n - 1 the upper triangle is one matrix, of rows 1 to n the lower triangle is another. BLAS multiplies with
    either as it is.

    Args:
        mol: The cluster.
        basis: Name of the basis that products of orbitals are expanded in.

    Attributes:
        basis: The fitting basis.
        reference: A superposition of the densities of atoms, whose Coulomb matrix is known in double precision: the
            rounding of B counts in that of the difference alone.

    Raises:
        LabellingError: If the fitting basis is linearly dependent.
    """

    def __init__(self, mol: "gto.Mole", basis: str):
        self.basis = FittingBasis(mol, basis)
        self.num_functions = mol.nao
        starts = range(0, len(self.basis), FITTING_AT_ONCE)
        self._sizes = [min(FITTING_AT_ONCE, len(self.basis) - start) for start in starts]
        shape = (self.num_functions + 1, self.num_functions)
        self._parts: list[np.ndarray] = [np.zeros(((size + 1) // 2, *shape), np.float32) for size in self._sizes]
        self.reference = density_of_atoms(mol)
        self._coulomb = np.zeros(shape[1:] * 2)
        self._compute(mol)

    def _compute(self, mol: "gto.Mole"):
        coefficients = scipy.linalg.cho_solve((self.basis.metric_root, True), self._projected_reference(mol))
        integrals, functions = self.basis.integrals("int3c2e"), mol.ao_loc_nr()
        most = BUFFER / (8 * self.basis.mol.nao * self.num_functions)
        first = 0
        while first < mol.nbas:
            last = max(first + 1, int(np.searchsorted(functions, functions[first] + most, side="right")) - 1)
            values = integrals.rows(first, last)
            coulomb = coefficients @ values
            values = scipy.linalg.blas.dtrsm(
                1.0, self.basis.metric_root, values.T, side=1, lower=1, trans_a=1, overwrite_b=1
            ).T.astype(np.float32)
            place = 0
            for row in range(functions[first], functions[last]):
                columns = slice(place, place + row + 1)
                self._keep(row, values[:, columns])
                self._coulomb[row, : row + 1] = self._coulomb[: row + 1, row] = coulomb[columns]
                place += row + 1
            first = last

    def _projected_reference(self, mol: "gto.Mole") -> np.ndarray:
        """Integrals of the reference with the fitting functions."""
        integrals, total = self.basis.integrals("int3c2e"), np.zeros(len(self.basis))
        for first, last, start, end in mol.aoslice_by_atom():
            values = integrals.block((first, last), (first, last))
            total += np.tensordot(values, self.reference[start:end, start:end])
        return total

    def _keep(self, row: int, values: np.ndarray):
        """Stores a row of the lower triangle of each matrix."""
        start = 0
        for size, part in zip(self._sizes, self._parts, strict=True):
            middle = start + len(part)
            part[:, : row + 1, row] = values[start:middle]
            part[: start + size - middle, row + 1, : row + 1] = values[middle : start + size]
            start += size

    def half_transforms(self, orbitals: np.ndarray, last: bool = False) -> Iterator[tuple[int, int, np.ndarray]]:
        """First and last fitting function of a block, and Σ_μ C_μi B_Pμν ``[block, num_orbitals, num_functions]``.

        The array is used again for the next block.

        Args:
            orbitals: C ``[num_functions, num_orbitals]``.
            last: The integrals are not needed any more: the memory of each block is given back.
        """
        columns = np.asfortranarray(orbitals, dtype=np.float32)
        buffer = np.empty((FITTING_AT_ONCE, orbitals.shape[1], self.num_functions), np.float32)
        start = 0
        for number, (size, part) in enumerate(zip(self._sizes, self._parts, strict=True)):
            for place in range(size):
                upper = place < len(part)
                matrix = part[place, :-1] if upper else part[place - len(part), 1:]
                scipy.linalg.blas.ssymm(
                    1.0, matrix.T, columns, c=buffer[place].T, overwrite_c=1, lower=1 if upper else 0
                )
            if last:
                self._parts[number] = part = np.empty((0, *part.shape[1:]), np.float32)
            yield start, start + size, buffer[:size]
            start += size

    def coulomb(self, density: np.ndarray) -> np.ndarray:
        """The Coulomb matrix of a density matrix, ``[num_functions, num_functions]`` both."""
        change = (density - self.reference).astype(np.float32)
        doubled = np.tril(change + change.T, -1) + np.diag(change.diagonal())
        halves = np.zeros((2, self.num_functions + 1, self.num_functions), np.float32)
        halves[0, :-1], halves[1, 1:] = doubled.T, doubled
        halves = halves.reshape(2, -1)
        total = np.zeros(halves.shape)
        for part in self._parts:
            matrices = part.reshape(len(part), -1)
            total += (halves @ matrices.T) @ matrices
        upper, lower = total.reshape(2, self.num_functions + 1, self.num_functions)
        triangle = np.triu(upper[:-1]).T + np.tril(lower[1:])
        return self._coulomb + triangle + np.tril(triangle, -1).T

    def exchange(self, orbitals: np.ndarray) -> np.ndarray:
        """The exchange matrix of the density matrix C Cᵀ of orbitals C ``[num_functions, num_orbitals]``."""
        total = np.zeros((self.num_functions, self.num_functions))
        for _, _, half in self.half_transforms(orbitals):
            total += scipy.linalg.blas.ssyrk(1.0, half.reshape(-1, self.num_functions).T, lower=1)
        return np.tril(total) + np.tril(total, -1).T


def density_of_atoms(mol: "gto.Mole") -> np.ndarray:
    """Density matrix of about that of free atoms side by side, without elements between them."""
    density = scf.hf.init_guess_by_minao(mol)
    blocks = [density[start:end, start:end] for _, _, start, end in mol.aoslice_by_atom()]
    return scipy.linalg.block_diag(*blocks)
