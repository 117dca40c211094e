"""Density fitting: auxiliary basis, three-centre integrals in memory, Coulomb and exchange matrices."""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from scipy.linalg import blas

from pyg_clusters.labels.dft import df, gto, scf
from pyg_clusters.labels.dft.level import num_core_orbitals
from pyg_clusters.labels.dft.paired_matrices import PairedMatrices
from pyg_clusters.labels.labellers import LabellingError

LARGEST_EXPONENT = 40  # products of primitive functions are neglected if they are smaller than exp(-LARGEST_EXPONENT)


class FittingBasis:
    r"""Auxiliary basis of spherical functions, also for molecules with Cartesian functions.

    For Cartesian orbitals, PySCF computes only integrals with Cartesian auxiliary functions; these are transformed to
    spherical functions. There are a fifth fewer of them, which reduces time and memory accordingly.

    The functions of each atom are orthonormalised in the Coulomb metric. The original functions of an atom are nearly
    linearly dependent, which would amplify the rounding errors of single precision.

    Args:
        mol: PySCF molecule.
        name: PySCF name of the auxiliary basis.

    Attributes:
        mol: PySCF molecule of the auxiliary basis.
        atoms: Index range of the functions of each atom ``[num_atoms, 2]``.
        metric_root: Lower triangular Cholesky factor L of the Coulomb metric L Lᵀ.

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
            raise LabellingError(f"the functions of {name} are linearly dependent; use exact integrals") from error
        both = mol + self.mol
        both.cart = mol.cart
        both._env[gto.PTR_EXPCUTOFF] = LARGEST_EXPONENT
        self._tables = both._atm, both._bas, both._env

    def __len__(self) -> int:
        return len(self.metric_root)

    def solve(self, projections: np.ndarray) -> np.ndarray:
        """Fitting coefficients ``[num_fitting]`` from ``projections``, the Coulomb integrals with this basis."""
        return scipy.linalg.cho_solve((self.metric_root, True), projections)

    def of_pyscf(self, values: np.ndarray, atom: int | None = None) -> np.ndarray:
        """Transform integrals ``[num_functions, ...]`` from the PySCF functions (of an atom) to this basis."""
        if atom is not None:
            return self._transformations[atom] @ values
        parts = zip(self._transformations, self._of_pyscf, strict=True)
        return np.concatenate([transformation @ values[start:end] for transformation, (start, end) in parts])

    def integrals(self, name: str) -> "ThreeCentreIntegrals":
        """Three-centre integrals of two basis functions and a function of this basis, by PySCF name."""
        return ThreeCentreIntegrals(self, name)


class ThreeCentreIntegrals:
    """Three-centre integrals of one type, over shells of the orbital basis and of the auxiliary basis."""

    def __init__(self, basis: FittingBasis, name: str):
        self.basis = basis
        self.name = f"{name}_cart" if basis.orbitals.cart else f"{name}_sph"
        self._optimizer = gto.moleintor.make_cintopt(*basis._tables, self.name)

    def rows(self, first: int, last: int) -> np.ndarray:
        """Compute the integrals ``[num_fitting, num_products]`` of all auxiliary functions with the lower triangle of
        the shells from ``first`` to before ``last``.
        """
        num_shells = self.basis.orbitals.nbas
        shells = (first, last, 0, last, num_shells, num_shells + self.basis.mol.nbas)
        values = gto.moleintor.getints(self.name, *self.basis._tables, shells, aosym="s2ij", cintopt=self._optimizer)
        return self.basis.of_pyscf(values.T)

    def block(
        self, rows: tuple[int, int], columns: tuple[int, int], atom: int | None = None, components: int = 1
    ) -> list[np.ndarray]:
        """Compute the components ``[num_fitting, columns, rows]`` of the integrals of auxiliary functions with products
        of shells, which are given as ranges (first, last + 1), for the auxiliary functions of one atom or of all.
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
    """Orthonormalise the rows of a transformation in a metric."""
    root = scipy.linalg.cholesky(transformation @ metric @ transformation.T, lower=True)
    return scipy.linalg.solve_triangular(root, transformation, lower=True)


BUFFER = 2e8  # bytes of integrals computed in one batch
LIKE_A_CORE = 0.9  # minimum overlap with the cores of free atoms for orbitals to be treated as cores

COLUMNS_AT_ONCE = 8192

ROWS_AT_ONCE = 1024  # number of rows whose products are summed in single precision


class FittedIntegrals:
    r"""Density-fitted two-electron integrals.

    .. math:: (\mu\nu|\lambda\sigma) = \sum_{PQ} (\mu\nu|P) (V^{-1})_{PQ} (Q|\lambda\sigma),

    where V is the Coulomb metric of the auxiliary functions. The integrals :math:`(P|\mu\nu)` are stored in single
    precision.

    Most occupied orbitals of a metal cluster are core orbitals. A product with a core orbital is localised on its atom
    and is expanded only in the auxiliary functions of this atom. Because the fit is variational, the error of the
    exchange energy is of second order; shieldings of Na14 change by 0.01 ppm.

    Args:
        mol: PySCF molecule.
        basis: Name of the auxiliary basis.

    Attributes:
        basis: Auxiliary basis.
        reference: Superposition of atomic density matrices. Its Coulomb matrix is computed in double precision, and
            only the difference to it is affected by single-precision rounding.

    Raises:
        LabellingError: If the auxiliary basis is linearly dependent.
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
        """Coulomb integrals of the reference density with the auxiliary functions."""
        integrals, total = self.basis.integrals("int3c2e"), np.zeros(len(self.basis))
        for first, last, start, end in mol.aoslice_by_atom():
            (values,) = integrals.block((first, last), (first, last))
            total += np.tensordot(values, self.reference[start:end, start:end])
        return total

    def coulomb(self, density: np.ndarray) -> np.ndarray:
        """Compute the Coulomb matrix of a density matrix, both ``[num_functions, num_functions]``."""
        return self._coulomb + self._matrices.combination(self._of_difference(density))

    def expansion(self, density: np.ndarray) -> np.ndarray:
        """Compute the fitting coefficients ``[num_fitting]`` of a density matrix."""
        return self._of_reference + self._of_difference(density)

    def _of_difference(self, density: np.ndarray) -> np.ndarray:
        return self.basis.solve(self._matrices.projections(density - self.reference))

    def exchange(self, orbitals: np.ndarray) -> np.ndarray:
        """Compute the exchange matrix of the density matrix C Cᵀ of orbitals C ``[num_functions, num_orbitals]``."""
        total = np.zeros((self.num_functions, self.num_functions))
        others, *cores = self._products(orbitals, self._cores.localise(orbitals))
        _solve_in_place(self.basis.metric_root, others)
        for products in (others, *cores):
            rows = products.reshape(-1, self.num_functions)
            for start in range(0, len(rows), ROWS_AT_ONCE):
                total += blas.ssyrk(1.0, rows[start : start + ROWS_AT_ONCE].T, lower=1)
        return np.tril(total) + np.tril(total, -1).T

    def fit(self, orbitals: np.ndarray) -> "FittedProducts":
        """Fit the products of orbitals ``[num_functions, num_orbitals]`` with all basis functions."""
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
        """Integrals of auxiliary functions with orbital products, ``[num_fitting, num_orbitals, num_functions]`` each.

        The first array has all auxiliary functions and the orbitals that are not cores; the others have the auxiliary
        functions and core orbitals of one atom each.
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
    """Density-fitted products of orbitals with all basis functions."""

    matrices: PairedMatrices  #: Three-centre integrals of the auxiliary functions with products of basis functions.
    orbitals: np.ndarray  #: Orbitals c ``[num_functions, num_orbitals]``.
    #: For each atom, rotation ``[num_orbitals, part]`` to the orbitals that are fitted with its auxiliary functions.
    rotations: list[np.ndarray]
    #: Fitting coefficients ``[fitting functions of the atom, part, num_functions]`` of each atom.
    coefficients: list[np.ndarray]

    def exchange(self, others: np.ndarray) -> np.ndarray:
        r"""Compute the exchange matrix of the density matrix :math:`\sum_j x_j c_j^T` with the orbitals c.

        Args:
            others: Orbitals x ``[num_functions, num_orbitals]``.
        """
        total = np.zeros((len(others), len(others)))
        for atom, (rotation, coefficients) in enumerate(zip(self.rotations, self.coefficients, strict=True)):
            products = self.matrices.products(atom, others @ rotation)
            total += products.reshape(-1, len(others)).T @ coefficients.reshape(-1, len(others))
        return total


class _CoresOfAtoms:
    """Core orbitals of free atoms, used to identify and localise the core orbitals of a cluster."""

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
        """Rotations ``[num_orbitals, part]`` to the non-core orbitals, and to the core orbitals of each atom."""
        num_orbitals, num_cores = orbitals.shape[1], self.orbitals.shape[1]
        if num_orbitals >= num_cores:
            left, overlaps, right = np.linalg.svd(orbitals.T @ self.overlap @ self.orbitals)
            if (overlaps > LIKE_A_CORE).all():
                cores = left[:, :num_cores] @ right
                return [left[:, num_cores:], *np.split(cores, np.cumsum(self.numbers)[:-1], axis=1)]
        return [np.eye(num_orbitals), *[np.empty((num_orbitals, 0))] * len(self.numbers)]


def _solve_in_place(root: np.ndarray, matrix: np.ndarray, transposed: bool = False):
    """Multiply a matrix ``[num_fitting, ...]`` by L⁻¹ or L⁻ᵀ in place, in batches of columns to save memory."""
    columns = matrix.reshape(len(matrix), -1)
    root = np.asfortranarray(root, np.float32)
    for start in range(0, columns.shape[1], COLUMNS_AT_ONCE):
        part = columns[:, start : start + COLUMNS_AT_ONCE]
        part[:] = blas.strsm(1.0, root, part.T, side=1, lower=1, trans_a=0 if transposed else 1).T


def density_of_atoms(mol: "gto.Mole") -> np.ndarray:
    """Block-diagonal density matrix, approximately that of superposed free atoms."""
    density = scf.hf.init_guess_by_minao(mol)
    blocks = [density[start:end, start:end] for _, _, start, end in mol.aoslice_by_atom()]
    return scipy.linalg.block_diag(*blocks)
