"""The functions that products of orbitals are expanded in."""

import numpy as np
import scipy.linalg
import scipy.sparse

from pyg_clusters.labels.dft.pyscf_import import df, gto
from pyg_clusters.labels.result import LabellingError

LARGEST_EXPONENT = 40
"""Products of primitive functions are left out where they are smaller than e to the minus this."""


class FittingBasis:
    r"""A fitting basis of solid harmonics, also where the orbitals are of cartesian functions.

    PySCF knows integrals of cartesian functions with cartesian ones alone, of which a transformation makes harmonics.
    There are a fifth fewer of them, and all that is done with the integrals takes so much less time and memory.

    Args:
        mol: The cluster.
        name: The basis, by PySCF's name.

    Attributes:
        mol: The basis as PySCF has it.
        atoms: First and last function of each atom ``[num_atoms, 2]``.
        metric_root: Lower triangular L, where the Coulomb metric of the basis is L Lᵀ.

    Raises:
        LabellingError: If the basis is linearly dependent.
    """

    def __init__(self, mol: "gto.Mole", name: str):
        self.orbitals, self.mol = mol, df.addons.make_auxmol(mol, name)
        metric = self.mol.intor("int2c2e")
        self._harmonics: scipy.sparse.csr_array | None = None
        harmonic = self.mol.copy()
        if mol.cart:
            transformation = self.mol.cart2sph_coeff(normalized="sp")
            self._harmonics = scipy.sparse.csr_array(transformation.T)
            metric = transformation.T @ metric @ transformation
            harmonic.cart = False
        self.atoms = harmonic.aoslice_by_atom()[:, 2:]
        try:
            self.metric_root = np.asfortranarray(scipy.linalg.cholesky(metric, lower=True))
        except scipy.linalg.LinAlgError as error:
            raise LabellingError(
                f"the functions of {name} are linearly dependent; exact integrals do without"
            ) from error
        both = mol + self.mol
        both.cart = mol.cart
        both._env[gto.PTR_EXPCUTOFF] = LARGEST_EXPONENT
        self._tables = both._atm, both._bas, both._env

    def __len__(self) -> int:
        return len(self.metric_root)

    def integrals(self, name: str) -> "ThreeCentreIntegrals":
        """Integrals of products of two orbitals' functions with those of this basis, by PySCF's name."""
        return ThreeCentreIntegrals(self, name)


class ThreeCentreIntegrals:
    """Integrals of one kind, of shells of the orbitals' basis with shells of the fitting basis."""

    def __init__(self, basis: FittingBasis, name: str):
        self.basis = basis
        self.name = f"{name}_cart" if basis.orbitals.cart else f"{name}_sph"
        self._optimizer = gto.moleintor.make_cintopt(*basis._tables, self.name)

    def rows(self, first: int, last: int) -> np.ndarray:
        """All fitting functions with rows of the lower triangle of products, ``[num_fitting, num_products]``.

        Args:
            first: First shell of the rows.
            last: The shell after the last.
        """
        num_shells = self.basis.orbitals.nbas
        shells = (first, last, 0, last, num_shells, num_shells + self.basis.mol.nbas)
        values = gto.moleintor.getints(self.name, *self.basis._tables, shells, aosym="s2ij", cintopt=self._optimizer)
        return self._of_harmonics(values.T, slice(None))

    def block(
        self, rows: tuple[int, int], columns: tuple[int, int], atom: int | None = None, components: int = 1
    ) -> list[np.ndarray]:
        """Components of fitting functions with products of shells, ``[num_fitting, columns, rows]`` each.

        Args:
            rows: First shell of the products' first function, and the one after the last.
            columns: The same of the second function.
            atom: Index of the atom whose fitting functions are taken; all atoms without.
            components: Number of components of the integral.
        """
        slices = self.basis.mol.aoslice_by_atom()
        first, last, start, end = slices[atom] if atom is not None else (0, slices[-1][1], 0, slices[-1][3])
        num_shells = self.basis.orbitals.nbas
        shells = (*rows, *columns, num_shells + first, num_shells + last)
        values = gto.moleintor.getints(
            self.name, *self.basis._tables, shells, comp=components, aosym="s1", cintopt=self._optimizer
        )
        parts = values.T.reshape(components, end - start, -1) if components == 1 else values.transpose(0, 3, 2, 1)
        shape = values.shape[-2], values.shape[-3]
        return [
            self._of_harmonics(part.reshape(end - start, -1), slice(start, end)).reshape(-1, *shape) for part in parts
        ]

    def _of_harmonics(self, values: np.ndarray, cartesians: slice) -> np.ndarray:
        """Rows of solid harmonics out of those of cartesian functions."""
        if self.basis._harmonics is None:
            return values
        matrix = self.basis._harmonics[:, cartesians]
        return matrix[np.diff(matrix.indptr) > 0] @ values
