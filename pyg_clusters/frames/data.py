"""Conversion between ASE objects and PyG graphs."""

import numpy as np
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from torch_geometric.data import Batch, Data

from pyg_clusters.errors import InputError
from pyg_clusters.frames.ase_reader import atom_property, frame_property
from pyg_clusters.frames.join import join_atoms
from pyg_clusters.options import Fragments

ENERGIES: tuple[str, ...] = ("energy", "REF_energy")
"""Names of the energy of a frame, in eV."""

FORCES: tuple[str, ...] = ("forces", "REF_forces")
"""Names of the forces of a frame, in eV/Å."""

FORCE: str = "force"
"""Key of the forces ``[num_atoms, 3]`` in eV/Å in the graphs of the data sets and of :func:`to_data`."""


def to_data(atoms: Atoms, dtype: torch.dtype | None = None, fragments: Fragments = "refuse") -> Data:
    """Graph of a cluster without edges, the input of models and transforms of this package.

    ``z [num_atoms]``, ``pos [num_atoms, 3]`` in Å and, if present (in ``info``, ``arrays`` or the results of a
    calculator), ``y [1]``, the ``energy`` or ``REF_energy`` in eV, and ``force [num_atoms, 3]``, the ``forces`` or
    ``REF_forces`` in eV/Å. A cluster in a periodic cell is joined across its faces.

    Args:
        atoms: The cluster.
        dtype: Type of the numbers, by default that of torch. Total energies of heavy elements need ``torch.double``.
        fragments: Treatment of a periodic cluster that stays in several pieces.

    Raises:
        InputError: If it is not an isolated cluster, or its two energies or forces differ.

    Example:
        >>> dimer = Atoms("Ga2", positions=[[0.0, 0.0, 0.0], [0.0, 0.0, 2.5]], info={"energy": -1.5})
        >>> to_data(dimer)
        Data(pos=[2, 3], z=[2], y=[1])
    """
    dtype = torch.get_default_dtype() if dtype is None else dtype
    cluster = join_atoms(atoms, fragments)
    data = Data(z=torch.from_numpy(cluster.numbers).long(), pos=torch.from_numpy(cluster.positions).to(dtype))
    energy = _one_of(ENERGIES, [frame_property(atoms, key) for key in ENERGIES], ())
    forces = _one_of(FORCES, [atom_property(atoms, key) for key in FORCES], (len(atoms), 3))
    if energy is not None:
        data.y = torch.from_numpy(energy.reshape(1)).to(dtype)
    if forces is not None:
        data[FORCE] = torch.from_numpy(forces).to(dtype)
    return data


def to_atoms(data: Data) -> Atoms:
    """Cluster of a graph, not periodic, with ``y [1]`` as its energy in eV and ``force`` as its forces in eV/Å.

    Shieldings ``y [num_atoms]`` in ppm (of two or more atoms) are stored in ``arrays["nmr_shielding"]``.

    Args:
        data: Graph of one cluster with ``z`` and ``pos``; split a batch by ``batch.to_data_list()``.

    Raises:
        InputError: If it is a batch, or lacks elements or positions.

    Example:
        >>> dimer = Atoms("Ga2", positions=[[0.0, 0.0, 0.0], [0.0, 0.0, 2.5]], info={"energy": -1.5})
        >>> to_atoms(to_data(dimer)).get_potential_energy()
        -1.5
    """
    if isinstance(data, Batch):
        raise InputError("got a batch of clusters; convert the graphs of batch.to_data_list() one by one")
    missing = [key for key in ("z", "pos") if key not in data]
    if missing:
        raise InputError(f"the graph has no {' and no '.join(missing)}; it has {', '.join(data.keys()) or 'nothing'}")
    atoms = Atoms(data.z.cpu().numpy(), data.pos.detach().double().cpu().numpy())
    results = {}
    if FORCE in data:
        results["forces"] = data[FORCE].detach().double().cpu().numpy()
    if "y" in data:
        y = data.y.detach().double().cpu().numpy()
        if y.size == 1:
            results["energy"] = float(y.reshape(()))
        elif y.shape == (len(atoms),):
            atoms.arrays["nmr_shielding"] = y
        else:
            raise InputError(f"y {list(y.shape)} is neither an energy nor a value for each of {len(atoms)} atoms")
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def _one_of(names: tuple[str, ...], values: list, shape: tuple[int, ...]) -> np.ndarray | None:
    """The value under any of the names; values under several names must agree."""
    found = {
        name: np.asarray(value, dtype=float) for name, value in zip(names, values, strict=True) if value is not None
    }
    for name, value in found.items():
        if value.size != np.prod(shape, dtype=int) or (shape and value.shape != shape):
            raise InputError(f"{name} has the shape {list(value.shape)}, not {list(shape)}")
    if not found:
        return None
    first = next(iter(found.values()))
    if not all(np.allclose(first, value) for value in found.values()):
        raise InputError(f"{' and '.join(found)} differ; remove one of them")
    return first
