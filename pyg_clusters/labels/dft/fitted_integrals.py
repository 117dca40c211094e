"""Coulomb and exchange matrices from density-fitted integrals that are held in memory."""

from collections.abc import Iterator

import numpy as np
import scipy.linalg

from pyg_clusters.labels.dft.pyscf_import import df, gto, lib
from pyg_clusters.labels.result import LabellingError

BUFFER = 2e8
"""Bytes of a buffer for the computation of integrals."""


class FittedIntegrals:
    r"""The tensor B, where :math:`(\mu\nu|\lambda\sigma) = \sum_P B_{P\mu\nu} B_{P\lambda\sigma}`.

    Args:
        mol: The cluster.
        basis: The basis that products of orbitals are expanded in.
        unpack: Hold B with both of its triangles too, twice the memory for less time.

    Attributes:
        fitting_mol: The fitting basis as PySCF has it.
        metric_root: Lower triangular L, where the Coulomb metric of the fitting basis is L Lᵀ.

    Raises:
        LabellingError: If the fitting basis is linearly dependent.
    """

    def __init__(self, mol: "gto.Mole", basis: str, unpack: bool = False):
        self.fitting_mol = df.addons.make_auxmol(mol, basis)
        metric = self.fitting_mol.intor("int2c2e")
        try:
            self.metric_root = scipy.linalg.cholesky(metric, lower=True)
        except scipy.linalg.LinAlgError as error:
            raise LabellingError(
                f"the functions of {basis} are linearly dependent; exact integrals do without"
            ) from error
        self.num_fitting, self.num_functions = len(metric), mol.nao
        # PySCF takes what memory it is given for buffers, but must have room for the result.
        result = 8 * (metric.size + self.num_fitting * mol.nao * (mol.nao + 1) // 2)
        memory = (result + 3 * BUFFER) / 0.98e6
        self.packed: np.ndarray = df.incore.cholesky_eri(mol, auxmol=self.fitting_mol, max_memory=memory)
        self.unpacked: np.ndarray | None = lib.unpack_tril(self.packed) if unpack else None

    def blocks(self, size: int = 240) -> Iterator[tuple[int, int, np.ndarray]]:
        """First and last fitting function of a block, and B ``[block, num_functions, num_functions]``."""
        for start in range(0, self.num_fitting, size):
            end = min(start + size, self.num_fitting)
            if self.unpacked is not None:
                yield start, end, self.unpacked[start:end]
            else:
                yield start, end, lib.unpack_tril(self.packed[start:end])

    def last_blocks(self, size: int = 240) -> Iterator[tuple[int, int, np.ndarray]]:
        """The same once and for all, from the last block to the first: the memory of each is given back."""
        self.unpacked = None
        for start in reversed(range(0, self.num_fitting, size)):
            block = lib.unpack_tril(self.packed[start:])
            self.packed.resize((start, self.packed.shape[1]), refcheck=False)
            yield start, start + len(block), block

    def coulomb(self, density: np.ndarray) -> np.ndarray:
        """The Coulomb matrix of a density matrix, ``[num_functions, num_functions]`` both."""
        packed = lib.pack_tril(density + density.T)
        diagonal = np.arange(1, self.num_functions + 1).cumsum() - 1
        packed[diagonal] *= 0.5
        return lib.unpack_tril((self.packed @ packed) @ self.packed)

    def exchange(self, orbitals: np.ndarray) -> np.ndarray:
        """The exchange matrix of the density matrix C Cᵀ of orbitals C ``[num_functions, num_orbitals]``."""
        rows = np.ascontiguousarray(orbitals.T)
        total = np.zeros((self.num_functions, self.num_functions), order="F")
        for _, _, block in self.blocks():
            half = np.matmul(rows, block).reshape(-1, self.num_functions)
            total = scipy.linalg.blas.dsyrk(1.0, half.T, beta=1.0, c=total, lower=1, overwrite_c=1)
        return np.tril(total) + np.tril(total, -1).T
