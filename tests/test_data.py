"""Conversion between ASE ``Atoms`` and PyG graphs."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from torch_geometric.data import Batch, Data

from pyg_clusters.errors import InputError
from pyg_clusters.frames import FORCE, to_atoms, to_data


def trimer() -> Atoms:
    return Atoms("Ga2In", positions=[[0.1, 5.0, 5.0], [2.6, 5.0, 5.0], [1.3, 7.2, 5.0]])


def test_labels_and_forces_come_back():
    atoms = trimer()
    forces = np.array([[1.0, 0.5, 0.0], [-1.0, 0.5, 0.0], [0.0, -1.0, 0.0]])
    atoms.calc = SinglePointCalculator(atoms, energy=-5.25, forces=forces)
    data = to_data(atoms, dtype=torch.double)
    assert (data.y.tolist(), data.z.tolist()) == ([-5.25], [31, 31, 49])
    found = to_atoms(data)
    assert found.get_potential_energy() == -5.25 and found.symbols.get_chemical_formula() == "Ga2In"
    np.testing.assert_array_equal(found.get_forces(), forces)
    np.testing.assert_array_equal(found.positions, atoms.positions)
    assert torch.equal(to_data(found, dtype=torch.double)[FORCE], data[FORCE])


def test_named_labels_are_read_and_contradictions_refused():
    atoms = trimer()
    atoms.info["REF_energy"] = -4.0
    atoms.arrays["REF_forces"] = np.ones((3, 3))
    assert to_data(atoms).y.tolist() == [-4.0] and to_data(atoms)[FORCE].sum() == 9
    atoms.info["energy"] = -3.0
    with pytest.raises(InputError, match="energy and REF_energy differ"):
        to_data(atoms)
    atoms.info["energy"] = np.nan
    with pytest.raises(InputError, match="energy must be finite, got nan; remove it"):
        to_data(atoms)


def test_total_energies_keep_their_digits_and_positions():
    """Single precision rounds -52000 eV by 0.004 eV; two such energies 0.3 eV apart are not one."""
    atoms = trimer()
    atoms.calc = SinglePointCalculator(atoms, energy=-52000.0123)
    assert to_data(atoms).y.tolist() == [-52000.0123] and to_data(atoms).pos.dtype == torch.float32
    atoms.info["REF_energy"] = -52000.3
    with pytest.raises(InputError, match="energy and REF_energy differ"):
        to_data(atoms)
    del atoms.info["REF_energy"]
    atoms.positions[0, 2] += 0.1
    with pytest.raises(InputError, match="'energy' was calculated at other positions"):
        to_data(atoms)


def test_a_cut_cluster_is_joined_and_a_crystal_refused():
    atoms = trimer()
    whole = to_data(atoms).pos
    atoms.set_cell([20.0, 20.0, 20.0])
    atoms.pbc = True
    atoms.positions -= [1.0, 0.0, 0.0]
    atoms.wrap()
    assert np.ptp(atoms.positions[:, 0]) > 15
    torch.testing.assert_close(torch.pdist(to_data(atoms).pos), torch.pdist(whole))
    assert not to_atoms(to_data(atoms)).pbc.any()
    atoms.set_cell([5.0, 5.0, 5.0])
    with pytest.raises(InputError, match="not a cluster"):
        to_data(atoms)


def test_shieldings_come_back():
    data = to_data(trimer())
    data.y = torch.tensor([600.0, 610.0, 620.0])
    assert to_atoms(data).arrays["nmr_shielding"].tolist() == [600.0, 610.0, 620.0]
    assert to_atoms(data).calc is None


def test_structures_that_are_not_clusters_are_refused():
    with pytest.raises(InputError, match="to_data_list"):
        to_atoms(Batch.from_data_list([to_data(trimer())] * 2))
    with pytest.raises(InputError, match="no z; it has pos"):
        to_atoms(Data(pos=torch.zeros(1, 3)))
    with pytest.raises(InputError, match="neither one energy nor a value"):
        to_atoms(Data(z=torch.tensor([31, 31, 31]), pos=torch.eye(3), y=torch.zeros(2)))
