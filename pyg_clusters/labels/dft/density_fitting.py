"""Density fitting: the fitting functions, and Coulomb and exchange matrices from integrals that are held in memory."""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from scipy.linalg import blas

from pyg_clusters.labels.dft import df, gto, scf
from pyg_clusters.labels.dft.level import num_core_orbitals
from pyg_clusters.labels.dft.paired_matrices import PairedMatrices
from pyg_clusters.labels.labelling import LabellingError

LARGEST_EXPONENT = 40
"""Products of primitive functions are left out where they are smaller than e to the minus this."""


class FittingBasis:
    r"""A fitting basis of solid harmonics, also where the orbitals are of cartesian functions.

    PySCF knows integrals of cartesian functions with cartesian ones alone, of which a transformation makes harmonics.
    There are a fifth fewer of them, and all that is done with the integrals takes so much less time and memory.

    The functions of each atom are orthonormal in the Coulomb metric: those of a set are nearly dependent on an atom,
    which would amplify the rounding of integrals in single precision.

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
        metric, harmonic = self.mol.intor("int2c2e"), self.mol.copy()
        whole = self.mol.cart2sph_coeff(normalized="sp").T if mol.cart else np.eye(len(metric))
        harmonic.cart = False
        self.atoms = harmonic.aoslice_by_atom()[:, 2:]
        self._of_pyscf = self.mol.aoslice_by_atom()[:, 2:]
        try:
            self._transformations = [
                _orthonormal(whole[slice(*rows), slice(*columns)], metric[slice(*columns), slice(*columns)])
                for rows, columns in zip(self.atoms, self._of_pyscf, strict=True)
            ]
            transformation = scipy.linalg.block_diag(*self._transformations)
            metric = transformation @ metric @ transformation.T
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

    def solve(self, projections: np.ndarray) -> np.ndarray:
        """Coefficients of functions whose Coulomb integrals with those of this basis are given, ``[num_fitting]``."""
        return scipy.linalg.cho_solve((self.metric_root, True), projections)

    def of_pyscf(self, values: np.ndarray, atom: int | None = None) -> np.ndarray:
        """Integrals with the functions of this basis (of an atom) from those with PySCF's, ``[num_functions, ...]``."""
        if atom is not None:
            return self._transformations[atom] @ values
        parts = zip(self._transformations, self._of_pyscf, strict=True)
        return np.concatenate([transformation @ values[start:end] for transformation, (start, end) in parts])

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
        """All fitting functions with rows of shells of the lower triangle, ``[num_fitting, num_products]``."""
        num_shells = self.basis.orbitals.nbas
        shells = (first, last, 0, last, num_shells, num_shells + self.basis.mol.nbas)
        values = gto.moleintor.getints(self.name, *self.basis._tables, shells, aosym="s2ij", cintopt=self._optimizer)
        return self.basis.of_pyscf(values.T)

    def block(
        self, rows: tuple[int, int], columns: tuple[int, int], atom: int | None = None, components: int = 1
    ) -> list[np.ndarray]:
        """Components of fitting functions (of an atom) with products of shells, ``[num_fitting, columns, rows]`` each.

        Rows and columns are the first shell of the products' first and second function, and the one after the last.
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
        return [self.basis.of_pyscf(part.reshape(end - start, -1), atom).reshape(-1, *shape) for part in parts]


def _orthonormal(transformation: np.ndarray, metric: np.ndarray) -> np.ndarray:
    """Rows of a transformation, combined to be orthonormal in a metric."""
    root = scipy.linalg.cholesky(transformation @ metric @ transformation.T, lower=True)
    return scipy.linalg.solve_triangular(root, transformation, lower=True)


BUFFER = 2e8
"""Bytes of integrals that are computed at once."""

LIKE_A_CORE = 0.9
"""Least overlap of orbitals with the cores of free atoms for them to be taken as cores."""

COLUMNS_AT_ONCE = 8192

ROWS_AT_ONCE = 1024
"""Rows whose products are summed in single precision."""


class FittedIntegrals:
    r"""Two-electron integrals, with products of orbitals expanded in a fitting basis.

    .. math:: (\mu\nu|\lambda\sigma) = \sum_{PQ} (\mu\nu|P) (V^{-1})_{PQ} (Q|\lambda\sigma),

    where V is the Coulomb metric of the fitting functions. The integrals :math:`(P|\mu\nu)` are held in single
    precision.

    Most occupied orbitals of a metal cluster are cores. A product with the core of an atom lies on that atom, and is
    expanded in the functions of that atom alone. The fit is variational, so that the error of the exchange is of second
    order; shieldings of Na14 change by 0.01 ppm.

    Args:
        mol: The cluster.
        basis: Name of the fitting basis.

    Attributes:
        basis: The fitting basis.
        reference: A superposition of the densities of atoms, whose Coulomb matrix is known in double precision: the
            rounding of the integrals counts in that of the difference alone.

    Raises:
        LabellingError: If the fitting basis is linearly dependent.
    """

    def __init__(self, mol: "gto.Mole", basis: str):
        self.basis = FittingBasis(mol, basis)
        self.num_functions = mol.nao
        self.reference = density_of_atoms(mol)
        self._cores = _CoresOfAtoms(mol, self.reference)
        self._matrices = PairedMatrices(np.diff(self.basis.atoms, axis=1).ravel(), mol.nao)
        self._coulomb = np.zeros((mol.nao, mol.nao))
        self._compute(mol)

    def _compute(self, mol: "gto.Mole"):
        self._of_reference = self.basis.solve(self._projected_reference(mol))
        integrals, functions = self.basis.integrals("int3c2e"), mol.ao_loc_nr()
        most = BUFFER / (8 * self.basis.mol.nao * self.num_functions)
        first = 0
        while first < mol.nbas:
            last = max(first + 1, int(np.searchsorted(functions, functions[first] + most, side="right")) - 1)
            values = integrals.rows(first, last)
            coulomb = self._of_reference @ values
            place = 0
            for row in range(functions[first], functions[last]):
                columns = slice(place, place + row + 1)
                self._matrices.set_row(row, values[:, columns])
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

    def coulomb(self, density: np.ndarray) -> np.ndarray:
        """The Coulomb matrix of a density matrix, ``[num_functions, num_functions]`` both."""
        return self._coulomb + self._matrices.combination(self._of_difference(density))

    def expansion(self, density: np.ndarray) -> np.ndarray:
        """Coefficients ``[num_fitting]`` of the fitting functions in a density."""
        return self._of_reference + self._of_difference(density)

    def _of_difference(self, density: np.ndarray) -> np.ndarray:
        return self.basis.solve(self._matrices.projections(density - self.reference))

    def exchange(self, orbitals: np.ndarray) -> np.ndarray:
        """The exchange matrix of the density matrix C Cᵀ of orbitals C ``[num_functions, num_orbitals]``."""
        total = np.zeros((self.num_functions, self.num_functions))
        others, *cores = self._products(orbitals, self._cores.localise(orbitals))
        _solve_in_place(self.basis.metric_root, others)
        for products in (others, *cores):
            rows = products.reshape(-1, self.num_functions)
            for start in range(0, len(rows), ROWS_AT_ONCE):
                total += blas.ssyrk(1.0, rows[start : start + ROWS_AT_ONCE].T, lower=1)
        return np.tril(total) + np.tril(total, -1).T

    def fit(self, orbitals: np.ndarray) -> "FittedProducts":
        """Products of orbitals ``[num_functions, num_orbitals]`` with all functions, expanded in the fitting basis."""
        rotations = self._cores.localise(orbitals)
        others, *cores = self._products(orbitals, rotations)
        for transposed in (False, True):
            _solve_in_place(self.basis.metric_root, others, transposed)
        return FittedProducts(
            self._matrices,
            orbitals,
            [np.hstack([rotations[0], core]) for core in rotations[1:]],
            [
                np.concatenate([others[start:end], core], axis=1)
                for (start, end), core in zip(self.basis.atoms, cores, strict=True)
            ],
        )

    def _products(self, orbitals: np.ndarray, rotations: list[np.ndarray]) -> list[np.ndarray]:
        """Integrals of fitting functions with products, ``[num_fitting, num_orbitals, num_functions]`` each.

        First those of all fitting functions with the orbitals that are no cores, then those of the functions of each
        atom with its cores.
        """
        num_others = rotations[0].shape[1]
        others = np.empty((len(self.basis), num_others, self.num_functions), np.float32)
        results = [others]
        for atom, ((start, end), core) in enumerate(zip(self.basis.atoms, rotations[1:], strict=True)):
            products = self._matrices.products(atom, orbitals @ np.hstack([rotations[0], core]))
            others[start:end] = products[:, :num_others]
            results.append(products[:, num_others:].copy())
        return results


@dataclass(frozen=True)
class FittedProducts:
    """Products of orbitals with all functions, expanded in the fitting basis."""

    matrices: PairedMatrices
    """Integrals of the fitting functions with products of all functions."""
    orbitals: np.ndarray
    """The orbitals c ``[num_functions, num_orbitals]``."""
    rotations: list[np.ndarray]
    """Rotations ``[num_orbitals, part]`` to the localised ones of which an atom's functions expand the products."""
    coefficients: list[np.ndarray]
    """Coefficients ``[fitting functions of the atom, part, num_functions]`` by atom."""

    def exchange(self, others: np.ndarray) -> np.ndarray:
        r"""Exchange matrix of a density matrix :math:`\sum_j x_j c_j^T`, where c are the orbitals.

        Args:
            others: The functions x ``[num_functions, num_orbitals]``.
        """
        total = np.zeros((len(others), len(others)))
        for atom, (rotation, coefficients) in enumerate(zip(self.rotations, self.coefficients, strict=True)):
            products = self.matrices.products(atom, others @ rotation)
            total += products.reshape(-1, len(others)).T @ coefficients.reshape(-1, len(others))
        return total


class _CoresOfAtoms:
    """The cores of free atoms side by side, by which those of a cluster are told and localised."""

    def __init__(self, mol: "gto.Mole", density: np.ndarray):
        self.overlap = mol.intor_symmetric("int1e_ovlp")
        self.numbers = [num_core_orbitals(np.array([charge])) for charge in mol.atom_charges()]
        self.orbitals = np.zeros((mol.nao, sum(self.numbers)))
        first = 0
        for number, (_, _, start, end) in zip(self.numbers, mol.aoslice_by_atom(), strict=True):
            block = slice(start, end)
            root = scipy.linalg.cholesky(self.overlap[block, block], lower=True)
            _, vectors = np.linalg.eigh(root.T @ density[block, block] @ root)
            chosen = vectors[:, vectors.shape[1] - number :]
            self.orbitals[block, first : first + number] = scipy.linalg.solve_triangular(root.T, chosen)
            first += number

    def localise(self, orbitals: np.ndarray) -> list[np.ndarray]:
        """Rotations ``[num_orbitals, part]`` of orbitals to those that are no cores, and to the cores of each atom."""
        num_orbitals, num_cores = orbitals.shape[1], self.orbitals.shape[1]
        if num_orbitals >= num_cores:
            left, overlaps, right = np.linalg.svd(orbitals.T @ self.overlap @ self.orbitals)
            if (overlaps > LIKE_A_CORE).all():
                cores = left[:, :num_cores] @ right
                return [left[:, num_cores:], *np.split(cores, np.cumsum(self.numbers)[:-1], axis=1)]
        return [np.eye(num_orbitals), *[np.empty((num_orbitals, 0))] * len(self.numbers)]


def _solve_in_place(root: np.ndarray, matrix: np.ndarray, transposed: bool = False):
    """L⁻¹ or L⁻ᵀ times a matrix ``[num_fitting, ...]``, so many columns at a time that no second matrix is held."""
    columns = matrix.reshape(len(matrix), -1)
    root = np.asfortranarray(root, np.float32)
    for start in range(0, columns.shape[1], COLUMNS_AT_ONCE):
        part = columns[:, start : start + COLUMNS_AT_ONCE]
        part[:] = blas.strsm(1.0, root, part.T, side=1, lower=1, trans_a=0 if transposed else 1).T


def density_of_atoms(mol: "gto.Mole") -> np.ndarray:
    """Density matrix of about that of free atoms side by side, without elements between them."""
    density = scf.hf.init_guess_by_minao(mol)
    blocks = [density[start:end, start:end] for _, _, start, end in mol.aoslice_by_atom()]
    return scipy.linalg.block_diag(*blocks)
