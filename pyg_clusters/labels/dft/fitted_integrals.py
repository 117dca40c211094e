"""Coulomb and exchange matrices from density-fitted integrals that are held in memory."""

from collections.abc import Iterator

import numpy as np
import scipy.linalg

from pyg_clusters.labels.dft.fitting_basis import FittingBasis
from pyg_clusters.labels.dft.paired_matrices import PairedMatrices
from pyg_clusters.labels.dft.pyscf_import import gto, scf

BUFFER = 2e8
"""Bytes of integrals that are computed at once."""


class FittedIntegrals:
    r"""The tensor B, where :math:`(\mu\nu|\lambda\sigma) = \sum_P B_{P\mu\nu} B_{P\lambda\sigma}`, in single precision.

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
        self.reference = density_of_atoms(mol)
        self._matrices = PairedMatrices(len(self.basis), mol.nao)
        self._coulomb = np.zeros((mol.nao, mol.nao))
        self._compute(mol)

    def _compute(self, mol: "gto.Mole"):
        root = self.basis.metric_root
        coefficients = scipy.linalg.cho_solve((root, True), self._projected_reference(mol))
        integrals, functions = self.basis.integrals("int3c2e"), mol.ao_loc_nr()
        most = BUFFER / (8 * self.basis.mol.nao * self.num_functions)
        first = 0
        while first < mol.nbas:
            last = max(first + 1, int(np.searchsorted(functions, functions[first] + most, side="right")) - 1)
            values = integrals.rows(first, last)
            coulomb = coefficients @ values
            solved = scipy.linalg.blas.dtrsm(1.0, root, values.T, side=1, lower=1, trans_a=1, overwrite_b=1).T
            place = 0
            for row in range(functions[first], functions[last]):
                columns = slice(place, place + row + 1)
                self._matrices.set_row(row, solved[:, columns])
                self._coulomb[row, : row + 1] = self._coulomb[: row + 1, row] = coulomb[columns]
                place += row + 1
            first = last

    def _projected_reference(self, mol: "gto.Mole") -> np.ndarray:
        """Integrals of the reference with the fitting functions."""
        integrals, total = self.basis.integrals("int3c2e"), np.zeros(len(self.basis))
        for first, last, start, end in mol.aoslice_by_atom():
            (values,) = integrals.block((first, last), (first, last))
            total += np.tensordot(values, self.reference[start:end, start:end])
        return total

    def half_transforms(self, orbitals: np.ndarray, last: bool = False) -> Iterator[tuple[int, int, np.ndarray]]:
        """First and last fitting function of a block, and Σ_μ C_μi B_Pμν ``[block, num_orbitals, num_functions]``.

        The array is used again for the next block.

        Args:
            orbitals: C ``[num_functions, num_orbitals]``.
            last: The integrals are not needed any more: the memory of each block is given back.
        """
        return self._matrices.products(orbitals, last)

    def coulomb(self, density: np.ndarray) -> np.ndarray:
        """The Coulomb matrix of a density matrix, ``[num_functions, num_functions]`` both."""
        return self._coulomb + self._matrices.weighted_sum(density - self.reference)

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
