"""Shieldings by other programs: the released pyscf-properties, and gpu4pyscf on a GPU."""

import warnings
from collections.abc import Callable

import numpy as np

from pyg_clusters.errors import InputError, MissingExtra
from pyg_clusters.labels.dft.kohn_sham import converge
from pyg_clusters.labels.dft.level import ShieldingLevel
from pyg_clusters.labels.dft.pyscf_import import dft


def exact_shielding(mf: "dft.rks.RKS", tolerance: float = 1e-9) -> np.ndarray:
    """Shielding tensors ``[num_atoms, 3, 3]`` in ppm of a closed-shell calculation, from exact integrals.

    Two places of pyscf-properties 0.1.0 fail with PySCF 2.14, and are gone around:

    - small grids are no multiple of the block of points that the integration asserts: points of no weight are added;
    - the solver of the coupled-perturbed equations leaves out a direction of the field that has converged, where the
      induced potential expects all three.

    Args:
        mf: A converged calculation without density fitting.
        tolerance: Convergence of the coupled-perturbed equations.

    Raises:
        MissingExtra: If pyscf-properties is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other properties of the package say that they are under testing
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
    """A copy of a grid, with points of no weight up to a multiple of PySCF's block."""
    block = dft.numint.BLKSIZE
    missing = -len(grids.weights) % block
    copy = grids.copy()
    copy.coords = np.vstack([grids.coords, np.repeat(grids.coords[-1:], missing, axis=0)])
    copy.weights = np.append(grids.weights, np.zeros(missing))
    copy.non0tab = copy.make_mask(mol, copy.coords)
    return copy


def induced_potential(mf: "dft.rks.RKS") -> Callable[[np.ndarray], np.ndarray]:
    """The potential induced by any number of orbitals in first order."""
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
    """Checks that gpu4pyscf is there and finds a GPU.

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
    """Closed-shell solution and shielding tensors ``[num_atoms, 3, 3]`` in ppm by gpu4pyscf, with exact integrals.

    gpu4pyscf has the first-order two-electron integrals exactly and on the processor, so that density fitting of the
    rest would make the result depend on where the cluster lies.

    Returns:
        The calculation as PySCF has it, without a GPU, and the tensors.

    Raises:
        LabellingError: If the calculation does not converge.
    """
    import cupy
    from gpu4pyscf.properties.shielding import eval_shielding

    mf = level.mean_field(mol).to_gpu()
    converge(mf, None, "the closed-shell SCF")
    diamagnetic, paramagnetic = eval_shielding(mf)
    return mf.to_cpu(), cupy.asnumpy(diamagnetic + paramagnetic)
