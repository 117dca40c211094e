"""Density fitting: the fitting functions, and Coulomb and exchange matrices from integrals that are held in memory."""

from collections.abc import Iterator

import numpy as np
import scipy.linalg
import scipy.sparse
from scipy.linalg import blas

from pyg_clusters.labels.dft.pyscf_import import df, gto, scf
from pyg_clusters.labels.labelling import LabellingError

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


AT_ONCE = 128
"""Matrices of one array."""


class PairedMatrices:
    """Symmetric matrices of one size, in single precision.

    Two of them lie in an array of a row more than columns: of rows 0 to n - 1 the upper triangle is one matrix, of rows
    1 to n the lower triangle is another. BLAS multiplies with either as it is.

    Args:
        count: Number of matrices.
        size: Rows of each.

    Example:
        >>> pair = PairedMatrices(2, 3)
        >>> pair.set_block(0, np.array([np.eye(3), np.ones((3, 3))]))
        >>> pair.weighted_sum(np.diag([2.0, 0.0, 0.0]))  # 2 times the first matrix, and 2 times the second
        array([[4., 2., 2.],
               [2., 4., 2.],
               [2., 2., 4.]])
    """

    def __init__(self, count: int, size: int):
        self.size = size
        self._counts = [min(AT_ONCE, count - start) for start in range(0, count, AT_ONCE)]
        self._parts = [np.zeros(((count + 1) // 2, size + 1, size), np.float32) for count in self._counts]

    def set_row(self, row: int, values: np.ndarray):
        """Sets a row of the lower triangle of all matrices, ``[count, row + 1]``."""
        start = 0
        for count, part in zip(self._counts, self._parts, strict=True):
            middle = start + len(part)
            part[:, : row + 1, row] = values[start:middle]
            part[: start + count - middle, row + 1, : row + 1] = values[middle : start + count]
            start += count

    def set_block(self, start: int, matrices: np.ndarray):
        """Sets the matrices ``[block, size, size]`` of one array, which begins with the matrix ``start``."""
        part = self._parts[start // AT_ONCE]
        lower = np.tri(self.size, dtype=bool)
        np.copyto(part[:, :-1], matrices[: len(part)], where=lower.T)
        np.copyto(part[: len(matrices) - len(part), 1:], matrices[len(part) :], where=lower)

    def products(self, columns: np.ndarray, last: bool = False) -> Iterator[tuple[int, int, np.ndarray]]:
        """First and last matrix of a block, and the transposes of their products with columns.

        The array ``[block, num_columns, size]`` is used again for the next block.

        Args:
            columns: What is multiplied, ``[size, num_columns]``.
            last: The matrices are not needed any more: the memory of each block is given back.
        """
        columns = np.asfortranarray(columns, dtype=np.float32)
        buffer = np.empty((AT_ONCE, columns.shape[1], self.size), np.float32)
        start = 0
        for number, (count, part) in enumerate(zip(self._counts, self._parts, strict=True)):
            for place, product in enumerate(buffer[:count]):
                upper = place < len(part)
                matrix = part[place, :-1] if upper else part[place - len(part), 1:]
                blas.ssymm(1.0, matrix.T, columns, c=product.T, overwrite_c=1, lower=1 if upper else 0)
            if last:
                self._parts[number] = part = np.empty((0, *part.shape[1:]), np.float32)
            yield start, start + count, buffer[:count]
            start += count

    def weighted_sum(self, weights: np.ndarray) -> np.ndarray:
        """Sum of the matrices M, each times the sum of its elements' products with ``weights [size, size]``."""
        doubled = np.tril(weights + weights.T, -1) + np.diag(weights.diagonal())
        both = np.zeros((2, self.size + 1, self.size), np.float32)
        both[0, :-1], both[1, 1:] = doubled.T, doubled
        total = np.zeros((2, both[0].size))
        for part in self._parts:
            matrices = part.reshape(len(part), -1)
            total += (both.reshape(2, -1) @ matrices.T) @ matrices
        upper, lower = total.reshape(both.shape)
        triangle = np.triu(upper[:-1]).T + np.tril(lower[1:])
        return triangle + np.tril(triangle, -1).T


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
