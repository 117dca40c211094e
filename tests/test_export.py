"""Exported models in programs without this package."""

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from ase import Atoms

from pyg_clusters.cli import main
from pyg_clusters.models import SmoothDART
from pyg_clusters.models.checkpoint import load_model, save_ensemble, save_model
from pyg_clusters.structures import ModelCalculator
from pyg_clusters.testing import random_clusters

if find_spec("metatomic") is None:
    pytest.skip("the extra metatomic is not installed", allow_module_level=True)

USE = """
import sys
sys.modules["pyg_clusters"] = None  # importing it raises
import warnings
import numpy as np
from ase import Atoms
from metatomic_ase import MetatomicCalculator

reference = np.load("reference.npz")
atoms = Atoms(reference["z"], reference["pos"])
atoms.calc = MetatomicCalculator("model.pt", check_consistency=True)
np.testing.assert_allclose(atoms.get_potential_energy(), reference["energy"], atol=1e-5)
np.testing.assert_allclose(atoms.get_potential_energies(), reference["energies"], atol=1e-5)
np.testing.assert_allclose(atoms.get_forces(), reference["forces"], atol=1e-5)

atoms.set_cell([[30, 0, 0], [8, 28, 0], [0, 0, 32]])  # cut by a face and a corner
atoms.pbc = True
atoms.positions += [29.0, 1.0, 31.0]
atoms.wrap()
assert np.ptp(atoms.positions[:, 2]) > 20
np.testing.assert_allclose(atoms.get_potential_energy(), reference["energy"], atol=1e-5)
np.testing.assert_allclose(atoms.get_forces(), reference["forces"], atol=1e-5)

def refusal(atoms):
    try:
        atoms.get_potential_energy()
    except Exception as error:
        return str(error)

atoms.set_cell([11, 30, 30])
assert "isolated clusters" in refusal(atoms)
strange = Atoms("Na2", positions=[[0, 0, 0], [0, 0, 3]], calculator=atoms.calc)
assert "atomic type '11'" in refusal(strange)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    Atoms("CuAu", positions=[[0, 0, 0], [0, 0, 2.6]], calculator=atoms.calc).get_potential_energy()
assert any("2 atoms, those of the training set had 12 to 20" in str(warning.message) for warning in caught), caught
"""

WARNED = """
import sys
import warnings
from ase.io import read
from metatomic_ase import MetatomicCalculator

for file, expected in zip(sys.argv[1::2], sys.argv[2::2]):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        atoms = read(file)
        atoms.calc = MetatomicCalculator("model.pt")  # a new one, as each warns once
        atoms.get_potential_energy()
    found = [str(w.message) for w in caught if "training set" in str(w.message)]
    assert [expected in each for each in found] == [True] * bool(expected), (file, found)
"""

SPREAD = """
import numpy as np
from ase import Atoms
from metatomic.torch import ModelOutput
from metatomic_ase import MetatomicCalculator

reference = np.load("reference.npz")
atoms = Atoms(reference["z"], reference["pos"])
calculator = MetatomicCalculator("model.pt", check_consistency=True, uncertainty_threshold=None)
asked = {name: ModelOutput(unit="eV", sample_kind="system") for name in ("energy", "energy_uncertainty")}
found = calculator.run_model(atoms, asked)
for name, key in (("energy", "energy"), ("energy_uncertainty", "spread")):
    np.testing.assert_allclose(found[name].block().values.detach()[0], reference[key], atol=1e-5)
"""


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    model = SmoothDART(elements=(29, 79), hidden_channels=16, degree=2).double()
    z, pos, ptr = random_clusters((12, 20), 29, torch.Generator().manual_seed(1))
    z[::3] = 79
    model.domain.fit(z, ptr, pos)
    model.scale.fit(z, ptr, torch.tensor([-40.0, -70.0]))
    save_model(model, tmp_path / "model", {"test_force_mae_mev_per_angstrom": 1.0})
    return model


@pytest.mark.slow
def test_energies_and_forces_without_this_package(model, tmp_path, capsys):
    z, pos, _ = random_clusters((16,), 29, torch.Generator().manual_seed(2))
    z[::3] = 79
    atoms = Atoms(z.numpy(), pos.numpy(), calculator=ModelCalculator(model))
    forces = atoms.get_forces()
    assert np.abs(forces).max() > 0.1
    np.savez(
        tmp_path / "reference.npz",
        z=z.numpy(),
        pos=pos.numpy(),
        energy=atoms.get_potential_energy(),
        energies=atoms.get_potential_energies(),
        forces=forces,
    )
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "model.pt")]) == 0
    assert "Cu, Au, float64" in capsys.readouterr().out
    used = subprocess.run([sys.executable, "-c", USE], cwd=tmp_path, capture_output=True, text=True)
    assert used.returncode == 0, used.stderr[-2000:]
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "model.pt")]) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.slow
def test_exported_models_warn_of_compositions_and_pairs_of_elements(tmp_path):
    """A chain with Cu-Cu of 2.2 Å and Au-Au of 2.6 Å: 2.25 Å between gold atoms is too short, not between copper."""
    chain = Atoms("Cu2Au2", [[0, 0, 0], [2.2, 0, 0], [4.7, 0, 0], [7.3, 0, 0]])
    model = SmoothDART(elements=(29, 79), hidden_channels=16, degree=1).double()
    z, pos = torch.from_numpy(chain.numbers).long(), torch.from_numpy(chain.positions)
    model.domain.fit(z, torch.tensor([0, 4]), pos)
    with pytest.warns(UserWarning, match="do not determine the energies of Cu, Au"):
        model.scale.fit(z, torch.tensor([0, 4]), torch.tensor([-12.0]))
    save_model(model, tmp_path / "model", {"test_force_mae_mev_per_angstrom": 1.0})
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "model.pt")]) == 0
    swapped = Atoms("AuCu3", [[0, 0, 0], [2.5, 0, 0], [5.0, 0, 0], [7.6, 0, 0]])
    gold = Atoms("Au4", chain.positions * 1.2)
    short = Atoms("Au2Cu2", [[0, 0, 0], [2.25, 0, 0], [4.75, 0, 0], [6.95, 0, 0]])
    expected = ["", "", "0 % of the atoms are Cu, 50 to 50 % in the training set", "closer than any"]
    arguments = []
    for number, (atoms, reason) in enumerate(zip((chain, swapped, gold, short), expected, strict=True)):
        atoms.write(tmp_path / f"{number}.xyz")
        arguments += [f"{number}.xyz", reason]
    used = subprocess.run([sys.executable, "-c", WARNED, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert used.returncode == 0, used.stderr[-2000:]


@pytest.mark.slow
def test_spread_of_an_ensemble_without_this_package(model, tmp_path):
    torch.manual_seed(1)
    other = SmoothDART(elements=(29, 79), hidden_channels=16, degree=2).double()
    other.load_state_dict({**other.state_dict(), **{n: v for n, v in model.state_dict().items() if "domain" in n}})
    other.scale.load_state_dict(model.scale.state_dict())
    save_model(other, tmp_path / "other", {"test_force_mae_mev_per_angstrom": 1.0})
    save_ensemble(tmp_path / "both", [tmp_path / "model", tmp_path / "other"])
    ensemble = load_model(tmp_path / "both")
    z, pos, _ = random_clusters((16,), 29, torch.Generator().manual_seed(2))
    energy, spread = ensemble.mean_and_spread(z, pos, torch.zeros_like(z))
    assert spread > 0.01
    np.savez(tmp_path / "reference.npz", z=z, pos=pos, energy=energy.detach(), spread=spread.detach())
    assert main(["export", str(tmp_path / "both"), str(tmp_path / "model.pt")]) == 0
    used = subprocess.run([sys.executable, "-c", SPREAD], cwd=tmp_path, capture_output=True, text=True)
    assert used.returncode == 0, used.stderr[-2000:]


@pytest.mark.parametrize(
    ("name", "file", "reason"),
    [
        ("gallium", "x.pt", "DART has no forces"),
        ("sodium", "x.pt", "without energies of atoms"),
        ("gallium-forces", "x.txt", "ends in .pt"),
    ],
)
def test_models_that_cannot_be_exported_are_refused(name, file, reason, tmp_path, capsys):
    assert main(["export", name, str(tmp_path / file)]) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / file).exists()
