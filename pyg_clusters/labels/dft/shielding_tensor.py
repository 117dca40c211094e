"""Shielding tensors of closed-shell solutions from the orbital response to a magnetic field.

Density fitting is implemented here; exact integrals use pyscf-properties, and calculations on a GPU gpu4pyscf. The
first-order matrices are those of gauge-including atomic orbitals (GIAOs; Wolinski, Hinton, Pulay, J. Am. Chem. Soc.
1990, 112, 8251). They are imaginary and antisymmetric; functions return their imaginary part
``[3, num_functions, num_functions]``, by component of the field.
"""

import warnings
from collections.abc import Callable

import numpy as np

from pyg_clusters.errors import InputError, MissingExtra
from pyg_clusters.labels.dft import dft, gto, lib
from pyg_clusters.labels.dft.density_fitting import FittedIntegrals, FittedProducts, FittingBasis
from pyg_clusters.labels.dft.kohn_sham import ClosedShell, IntegrationGrid, converge
from pyg_clusters.labels.dft.level import ShieldingLevel
from pyg_clusters.labels.labellers import LabellingError


def gauge_overlap(mol: "gto.Mole") -> np.ndarray:
    """First-order overlap matrix."""
    return -mol.intor_asymmetric("int1e_igovlp", 3)


def one_electron(mol: "gto.Mole") -> np.ndarray:
    """First-order one-electron matrix: angular momentum, kinetic energy and nuclear attraction."""
    total = -0.5 * mol.intor("int1e_giao_irjxp", 3)
    total -= mol.intor_asymmetric("int1e_ignuc", 3)
    total -= mol.intor("int1e_igkin", 3)
    return total


def exchange_correlation(grid: IntegrationGrid, density: np.ndarray) -> np.ndarray:
    r"""Compute the first-order matrix of the exchange-correlation potential.

    The product of two GIAOs differs from that of the basis functions by a phase linear in r:

    .. math:: V_k = -\tfrac12 \sum_{ab} \epsilon_{kab} (R_\mu - R_\nu)_a [M_b + N_b],

    where :math:`M_b = \int r_b [v \chi_\mu \chi_\nu + \mathbf w \cdot \nabla(\chi_\mu \chi_\nu)]`,
    :math:`N_b = \int w_b \chi_\mu \chi_\nu`, and v and w are the derivatives of the energy density with respect to the
    density and its gradient.
    """
    moments = np.zeros((3, *density.shape))
    for block in grid.blocks():
        potential = grid.functional.eval_xc_eff(grid.xc, block.density(density), deriv=1, xctype="GGA")[1]
        potential *= block.weights
        scaled, functions = block.weighted(potential), np.ix_(block.functions, block.functions)
        for moment, coords, part in zip(moments, block.coords.T, potential[1:], strict=True):
            # half of the matrix; the transpose is added below
            halves = coords[:, None] * scaled + 0.5 * part[:, None] * block.values[0]
            moment[functions] += block.values[0].T @ halves.astype(np.float32)
    moments += moments.transpose(0, 2, 1)
    mol = grid.mol
    atom_of_function = np.repeat(np.arange(mol.natm), np.diff(mol.aoslice_by_atom()[:, 2:], axis=1).ravel())
    centres = mol.atom_coords()[atom_of_function]
    apart = (centres[:, None] - centres[None]).transpose(2, 0, 1)
    return -0.5 * np.cross(apart, moments, axis=0)


def coulomb_exchange(
    integrals: FittedIntegrals, mol: "gto.Mole", products: FittedProducts
) -> tuple[np.ndarray, np.ndarray]:
    r"""Compute the first-order Coulomb and exchange matrices with density fitting.

    The auxiliary functions are real and independent of the field. The result is therefore the derivative of the fitted
    energy and does not depend on the gauge origin.
    """
    num_functions = mol.nao
    three_centre = _ThreeCentre(mol, integrals.basis)
    coulomb, exchange = np.zeros((2, 3, num_functions, num_functions))
    density = integrals.expansion(2 * products.orbitals @ products.orbitals.T).astype(np.float32)
    for atom, (start, end) in enumerate(integrals.basis.atoms):
        localised = (products.orbitals @ products.rotations[atom]).astype(np.float32)
        rows = products.coefficients[atom].reshape(-1, num_functions)
        for axis, integral in enumerate(three_centre.of_atom(atom)):  # [end - start, num_functions, num_functions]
            coulomb[axis] -= np.tensordot(density[start:end], integral, 1).T
            part = integral.reshape(-1, num_functions) @ localised
            part = part.reshape(end - start, num_functions, -1).transpose(1, 0, 2)
            exchange[axis] += 2 * part.reshape(num_functions, -1) @ rows
    return coulomb, exchange - exchange.transpose(0, 2, 1)


class _ThreeCentre:
    """Integrals (gμ ν|P) of the field derivatives of GIAO pairs, for auxiliary functions P of one atom at a time."""

    def __init__(self, mol: "gto.Mole", basis: FittingBasis):
        self.mol, self.basis = mol, basis
        self.integrals = basis.integrals("int3c2e_ig1")

    def of_atom(self, atom: int) -> np.ndarray:
        """Compute the integrals ``[3, auxiliary functions of the atom, ν, μ]``."""
        start, end = self.basis.atoms[atom]
        result = np.zeros((3, end - start, self.mol.nao, self.mol.nao), np.float32)
        for first, last, low, high in self.mol.aoslice_by_atom()[1:]:  # with functions of the preceding atoms
            for component, part in zip(result, self.integrals.block((first, last), (0, first), atom, 3), strict=True):
                component[:, :low, low:high] = part
                np.negative(component[:, :low, low:high].transpose(0, 2, 1), out=component[:, low:high, :low])
        return result


MAX_CYCLES = 40
LINEAR_DEPENDENCE = 1e-14

ENOUGH = 2.0
"""Accepted final residual in units of the tolerance, relative to the right-hand side if this is above one.

The tolerance limits the steps of the solver, and not the residual. For Na8, a residual of 4 × 10⁻⁴ changes shieldings
by 0.005 ppm.
"""

CORRECTIONS = 3
"""Maximum number of times that the equations are solved again for the residual, which small gaps require."""


class MagneticResponse:
    """Coupled-perturbed Kohn-Sham equations of a magnetic field, with density-fitted exchange.

    The density does not change to first order in the field, so only exact exchange couples the orbitals. Its integrals
    are stored in single precision, which changes shieldings by less than 1e-4 ppm.

    Args:
        solution: Closed-shell solution.
        products: Products of its occupied orbitals with all basis functions.
    """

    def __init__(self, solution: ClosedShell, products: FittedProducts):
        self.solution, self.products = solution, products

    def solve(self, first_order: np.ndarray, overlap: np.ndarray, tolerance: float) -> np.ndarray:
        """Solve for the first-order orbitals.

        Args:
            first_order: First-order Kohn-Sham matrix ``[3, num_orbitals, num_occupied]``.
            overlap: First-order overlap matrix, of the same shape.
            tolerance: Convergence tolerance.

        Returns:
            First-order orbitals as coefficients of the unperturbed orbitals, ``[3, num_orbitals, num_occupied]``.

        Raises:
            LabellingError: If the equations do not converge.
        """
        solution = self.solution
        occupied, energies = solution.mf.mo_occ > 0, solution.mf.mo_energy
        inner = -0.5 * overlap[:, occupied]
        differences = energies[~occupied][:, None] - energies[occupied]
        right = (first_order - overlap * energies[occupied])[:, ~occupied] + self._induced(solution.occupied @ inner)
        right = (-right / differences).reshape(3, -1)

        def coupled(vectors: np.ndarray) -> np.ndarray:
            changes = solution.virtual @ vectors.reshape(-1, *differences.shape)
            return (self._induced(changes) / differences).reshape(len(changes), -1)

        found, left, limit = np.zeros_like(right), right, tolerance
        accepted = ENOUGH * tolerance * max(1.0, float(np.linalg.norm(right, axis=1).max()))
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
            if residual < accepted:
                break
            limit = min(tolerance, 0.1 * residual)
        else:
            raise LabellingError(
                f"the coupled-perturbed equations did not converge: residual {residual:.1e}, above {accepted:.1e}"
            )
        result = np.empty_like(first_order)
        result[:, occupied] = inner
        result[:, ~occupied] = found.reshape(3, *differences.shape)
        return result

    def _induced(self, changes: np.ndarray) -> np.ndarray:
        """Kohn-Sham matrix ``[n, num_virtual, num_occupied]`` induced by a change of the occupied orbitals.

        Args:
            changes: First-order orbitals ``[n, num_functions, num_occupied]``.
        """
        virtual, occupied = self.solution.virtual, self.solution.occupied
        exchange = [self.products.exchange(change) for change in changes]
        return -self.solution.hybrid * np.array([virtual.T @ (part - part.T) @ occupied for part in exchange])


FINE_STRUCTURE = 7.2973525643e-3  # fine-structure constant (CODATA 2022)
PPM = FINE_STRUCTURE**2 * 1e6  # atomic unit of shielding in ppm


def shielding_tensors(solution: ClosedShell, tolerance: float) -> np.ndarray:
    """Compute GIAO shielding tensors ``[num_atoms, 3, 3]`` in ppm; rows: field, columns: nuclear moment.

    Every two-electron term uses the same density fitting, and the result does not depend on the position of the
    cluster.

    Args:
        solution: Closed-shell solution with density fitting.
        tolerance: Convergence tolerance of the coupled-perturbed equations.

    Raises:
        LabellingError: If the equations do not converge.
    """
    mol, coefficients, occupied = solution.mf.mol, solution.mf.mo_coeff, solution.occupied
    products = solution.integrals.fit(occupied)
    coulomb, exchange = coulomb_exchange(solution.integrals, mol, products)
    kohn_sham = one_electron(mol) + coulomb - 0.5 * solution.hybrid * exchange
    kohn_sham -= exchange_correlation(solution.grid, solution.density)
    first_order, overlap = (
        np.array([coefficients.T @ matrix @ occupied for matrix in matrices])
        for matrices in (kohn_sham, gauge_overlap(mol))
    )
    orbitals = MagneticResponse(solution, products).solve(first_order, overlap, tolerance)
    changes = np.array([2 * coefficients @ part @ occupied.T for part in orbitals])
    return PPM * (diamagnetic(mol, solution.density) + paramagnetic(mol, changes))


def diamagnetic(mol, density: np.ndarray) -> np.ndarray:
    """Diamagnetic part of the shielding, from the unperturbed density; ``[num_atoms, 3, 3]`` in atomic units."""
    parts = []
    for position in mol.atom_coords():
        with mol.with_rinv_origin(position):
            field = np.einsum("xij,ij->x", mol.intor("int1e_giao_a11part", comp=9), density).reshape(3, 3)
            gauge = np.einsum("xij,ij->x", mol.intor("int1e_a01gp", comp=9), density).reshape(3, 3)
        parts.append(field - np.eye(3) * field.trace() + gauge)
    return np.array(parts)


def paramagnetic(mol, changes: np.ndarray) -> np.ndarray:
    """Paramagnetic part of the shielding, from the first-order orbitals; ``[num_atoms, 3, 3]`` in atomic units.

    Args:
        mol: PySCF molecule.
        changes: First-order density matrices without their conjugates, ``[3, num_functions, num_functions]``.
    """
    parts = []
    for position in mol.atom_coords():
        with mol.with_rinv_origin(position):
            moment = mol.intor_asymmetric("int1e_prinvxp", 3)
        parts.append(2 * np.einsum("xji,yij->xy", changes, moment))
    return np.array(parts)


def exact_shielding(mf: "dft.rks.RKS", tolerance: float = 1e-9) -> np.ndarray:
    """Compute shielding tensors ``[num_atoms, 3, 3]`` in ppm from exact integrals with pyscf-properties.

    Works around two incompatibilities of pyscf-properties 0.1.0 with PySCF 2.14:

    - The integration requires a number of grid points that is a multiple of the block size; small grids are padded with
      points of zero weight.
    - The solver of the coupled-perturbed equations drops converged directions of the field, but the induced potential
      expects all three.

    Args:
        mf: Converged calculation without density fitting.
        tolerance: Convergence tolerance of the coupled-perturbed equations.

    Raises:
        MissingExtra: If pyscf-properties is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about experimental features
            from pyscf.prop.nmr import rhf, rks
    except ImportError as error:
        raise MissingExtra("pyscf-properties", "dft", "a shielding with exact integrals") from error
    nmr = rks.NMR(mf)
    nmr.conv_tol, nmr.verbose = tolerance, 0
    grids = mf.grids
    mf.grids = padded(grids, mf.mol)
    try:
        occupied = mf.mo_coeff[:, mf.mo_occ > 0]
        first_order = np.array([mf.mo_coeff.T @ matrix @ occupied for matrix in nmr.get_fock()])
    finally:
        mf.grids = grids
    orbitals = rhf.solve_mo1(nmr, h1=first_order, with_cphf=induced_potential(mf))[0]
    return (nmr.dia() + nmr.para(mo10=orbitals)[0]) * rhf.nist.ALPHA**2 * 1e6


def padded(grids: "dft.gen_grid.Grids", mol) -> "dft.gen_grid.Grids":
    """Copy a grid, padded with points of zero weight to a multiple of the block size of PySCF."""
    block = dft.numint.BLKSIZE
    missing = -len(grids.weights) % block
    copy = grids.copy()
    copy.coords = np.vstack([grids.coords, np.repeat(grids.coords[-1:], missing, axis=0)])
    copy.weights = np.append(grids.weights, np.zeros(missing))
    copy.non0tab = copy.make_mask(mol, copy.coords)
    return copy


def induced_potential(mf: "dft.rks.RKS") -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that computes the potential induced by any number of first-order orbitals."""
    response = mf.gen_response(singlet=True, hermi=2)
    occupied = mf.mo_coeff[:, mf.mo_occ > 0]
    shape = (-1, mf.mo_coeff.shape[1], occupied.shape[1])

    def induced(orbitals: np.ndarray) -> np.ndarray:
        orbitals = orbitals.reshape(shape)
        densities = np.array([2 * mf.mo_coeff @ part @ occupied.T for part in orbitals])
        potentials = response(densities - densities.transpose(0, 2, 1))
        return np.array([mf.mo_coeff.T @ part @ occupied for part in potentials]).reshape(len(orbitals), -1)

    return induced


def check_gpu():
    """Check that gpu4pyscf is installed and a GPU is available.

    Raises:
        MissingExtra: If gpu4pyscf is not installed.
        InputError: If there is no GPU.
    """
    try:
        import cupy
        import gpu4pyscf.properties.shielding  # noqa: F401
    except ImportError as error:
        raise MissingExtra("gpu4pyscf", "dft-gpu", "label shielding --device cuda") from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:
        count = 0
    if not count:
        raise InputError("--device cuda: gpu4pyscf finds no GPU; pass --device cpu")


def shielding_on_gpu(mol, level: ShieldingLevel) -> tuple["dft.rks.RKS", np.ndarray]:
    """Compute the closed-shell solution and shielding tensors ``[num_atoms, 3, 3]`` in ppm with gpu4pyscf.

    Integrals are exact: gpu4pyscf computes the first-order two-electron integrals exactly (on the CPU), and density
    fitting of the other terms would make the result depend on the position of the cluster.

    Returns:
        PySCF mean-field object on the CPU, and the tensors.

    Raises:
        LabellingError: If the self-consistent field does not converge.
    """
    import cupy
    from gpu4pyscf.properties.shielding import eval_shielding

    mf = level.mean_field(mol).to_gpu()
    converge(mf, None, "the closed-shell SCF")
    diamagnetic, paramagnetic = eval_shielding(mf)
    return mf.to_cpu(), cupy.asnumpy(diamagnetic + paramagnetic)
