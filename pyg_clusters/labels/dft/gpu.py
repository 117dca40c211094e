"""Shieldings on a GPU."""

import numpy as np

from pyg_clusters.errors import InputError, MissingExtra
from pyg_clusters.labels.dft.kohn_sham import converge
from pyg_clusters.labels.dft.level import ShieldingLevel
from pyg_clusters.labels.dft.pyscf_import import dft


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
