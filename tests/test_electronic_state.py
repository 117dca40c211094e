"""Charge and spin of frames are passed to the calculators, or the frame is refused."""

from functools import partial

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.db import connect
from ase.io import iread, write

from pyg_clusters.cli import main
from pyg_clusters.datasets import ClusterDataset, OnDiskClusters
from pyg_clusters.datasets.training_data import TrainingData
from pyg_clusters.errors import InputError
from pyg_clusters.frames import Frames, read_atoms, write_extxyz
from pyg_clusters.frames.electronic_state import STATE_NAMES, STATE_WORDS, ElectronicState, electronic_state, may_state
from pyg_clusters.inference import Predictor
from pyg_clusters.labels import EnergyLabeller, frame_keys
from pyg_clusters.models import Ensemble, SmoothDART
from pyg_clusters.models.checkpoint import save_model
from pyg_clusters.structures import Gupta, ModelCalculator, isolated_energies
from pyg_clusters.training.energy import EnergyTraining

TRIMER = [[0.0, 0.0, 0.0], [3.3, 0.0, 0.0], [1.65, 2.858, 0.0]]


def sodium(**info) -> Atoms:
    return Atoms("Na3", TRIMER, info=info)


class Recorder(Calculator):
    """Calculator whose energy is the charge plus a tenth of the multiplicity."""

    implemented_properties = ["energy", "forces"]
    default_parameters = {"charge": 0, "multiplicity": None}

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        super().calculate(atoms, properties, system_changes)
        energy = self.parameters.charge + 0.1 * (self.parameters.multiplicity or 0)
        self.results = {"energy": energy, "forces": np.zeros((len(atoms), 3))}


class FromInfo(Calculator):
    """Calculator whose energy is the charge in the info of the frame."""

    implemented_properties = ["energy", "forces"]
    charge_from_info = True

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        super().calculate(atoms, properties, system_changes)
        energy = float(atoms.info.get("total_charge", 0)) + atoms.get_initial_charges().sum()
        self.results = {"energy": energy, "forces": np.zeros((len(atoms), 3))}


@pytest.mark.parametrize(
    ("info", "charge", "multiplicity"),
    [
        ({}, 0, None),
        ({"charge": 1}, 1, None),
        ({"Charge": "+1"}, 1, None),
        ({"total_charge": -1.0, "charge": -1}, -1, None),
        ({"total_charge": 0.9999998, "charge": 1}, 1, None),  # a sum over the atoms
        ({"charge": -1.2e-7}, 0, None),
        ({"charge": 1, "multiplicity": 3}, 1, 3),
        ({"spin_multiplicity": 2}, 0, 2),
        ({"uhf": 3}, 0, 4),
        ({"unpaired": 3}, 0, 4),
        ({"2S+1": 2}, 0, 2),
        ({"spin": 0.5}, 0, 2),  # S
        ({"spin": 1}, 0, 2),  # 2S: one electron of 33 is unpaired
        ({"spin": 2}, 0, 2),  # 2S + 1
        ({"charge": 1, "spin": 0}, 1, 1),
        ({"charge": np.array([1])}, 1, None),
        ({"charge": None}, 0, None),
    ],
)
def test_accepted_names(info, charge, multiplicity):
    state = electronic_state(sodium(**info))
    assert (state.charge, state.multiplicity, state.electrons) == (charge, multiplicity, 33 - charge)


def test_comments_that_state_a_charge_or_spin():
    assert all(any(word in name.encode() for word in STATE_WORDS) for name in STATE_NAMES)
    stating = [
        b"charge=1",
        b'energy=1 Total_Charge="-1"',
        b"2S+1 = 3",
        b"q=1 'mult'=2",
        b"uhf=10",
        b"charge=+0.5",
        b"charge: 1",
        b"Charge 1 Multiplicity 1",
        b"Na3 charge -1",
        b"Charge/Mult: 0 3",
    ]
    silent = [b"charge=0", b'spin="0.0" q=1', b"my_charge=1", b"mulliken_charge=1", b"charge", b"charge= -0.00", b"e=1"]
    silent += [b"charge 0", b"charge transfer 1"]
    silent += [b"charge: 0", b"Properties=species:S:1:pos:R:3:charge:R:1:spin:I:1"]
    assert all(map(may_state, stating)) and not any(map(may_state, silent))


@pytest.mark.parametrize(
    "comment",
    [
        "charge: 1",
        "Na3, Charge: +1 multiplicity: 3",
        "energy=-1 total_charge: 1",
        "Charge 1 Multiplicity 3",
        "E=-1 charge 1",
        "Charge/Mult: 1 3",
        "Na3 charge, multiplicity = +1, 3",
        "E=-1 Charge / Spin multiplicity 1 3",
    ],
)
def test_a_charge_after_a_colon_or_a_blank(comment, tmp_path):
    (tmp_path / "a.xyz").write_text(f"3\n{comment}\nNa 0 0 0\nNa 0 0 3\nNa 0 0 6\n")
    (frame,) = read_atoms([tmp_path / "a.xyz"])
    state = electronic_state(frame.atoms)
    assert (state.charge, state.multiplicity) == (1, 3 if "mult" in comment.lower() else None)
    for silent in (
        "charge: 0, at time: 1",
        "UHF 6-31G, charge 0.5 of atom 1",
        'charge=0 note="charge 1, or charge: 2"',
    ):
        (tmp_path / "a.xyz").write_text(f"3\n{silent}\nNa 0 0 0\nNa 0 0 3\nNa 0 0 6\n")
        (frame,) = read_atoms([tmp_path / "a.xyz"])
        assert electronic_state(frame.atoms) == ElectronicState(0, None, 33)


def test_initial_charges_and_moments_count_by_their_sums():
    atoms = sodium()
    atoms.set_initial_charges([0.5, 0.5, 0.0])
    atoms.set_initial_magnetic_moments([1.0, 0.0, 1.0])
    assert electronic_state(atoms).charge == 1 and electronic_state(atoms).multiplicity == 3
    atoms.set_initial_charges([0.0, 0.0, 0.0])
    atoms.set_initial_magnetic_moments([1.0, -1.0, 0.0])
    assert electronic_state(atoms).charge == 0 and electronic_state(atoms).multiplicity is None


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"charge": 1, "total_charge": 0}, "charge and total_charge contradict each other"),
        ({"charge": 0.5}, "charge must be a whole number, got 0.5"),
        ({"charge": True}, "whole number"),
        ({"charge": float("nan")}, "whole number"),
        ({"multiplicity": 1}, "multiplicity means 0 unpaired electrons, which is impossible with 33 electrons"),
        ({"multiplicity": 2, "charge": 1}, "impossible with 32 electrons (Na3, charge 1)"),
        ({"multiplicity": 0}, "impossible"),
        ({"charge": 4}, "its charge is +4, but Na3 has 3 valence electrons; correct the charge"),
        ({"charge": -7}, "its charge is -7, but Na3 accepts at most 6 electrons"),
        ({"charge": 1, "spin": 1}, "spin = 1 may mean 0 or 2 unpaired electrons of 32; state multiplicity"),
    ],
)
def test_contradictions_are_refused(info, message, tmp_path, capsys):
    with pytest.raises(ValueError) as error:
        electronic_state(sodium(**info))
    assert message in str(error.value)


@pytest.mark.parametrize("calculator", [Recorder, FromInfo])
@pytest.mark.parametrize("verb", ["label", "relax"])
def test_charge_and_spin_reach_the_calculator(calculator, verb, tmp_path):
    frames = [sodium(total_charge=1, multiplicity=3), sodium(), sodium(total_charge=-1)]
    write_extxyz(tmp_path / "na.extxyz", frames)
    name = f"{__name__}:{calculator.__name__}"
    command = ["label", "energy"] if verb == "label" else ["relax"]
    out = tmp_path / "out.extxyz"
    assert main([*command, str(tmp_path / "na.extxyz"), "--calculator", name, "--out", str(out)]) == 0
    key = f"{calculator.__name__.lower()}_energy"
    read = [a.info[key] if verb == "relax" else a.get_potential_energy() for a in iread(out)]
    assert read == pytest.approx([1.3, 0.0, -1.0] if calculator is Recorder else [1.0, 0.0, -1.0])


@pytest.mark.parametrize("command", [["label", "energy"], ["relax"]])
@pytest.mark.parametrize("stated", [{"charge": 1}, {"total_charge": -1}, {"multiplicity": 4}])
def test_potentials_refuse_charge_and_spin(command, stated, tmp_path, capsys):
    write_extxyz(tmp_path / "na.extxyz", [sodium(), sodium(**stated)])
    options = ["--calculator", "gupta", "--out", str(tmp_path / "out.extxyz")]
    assert main([*command, str(tmp_path / "na.extxyz"), *options]) == 2
    line = capsys.readouterr().err
    assert "na.extxyz, frame 1: its " in line and "remove the " in line
    assert not (tmp_path / "out.extxyz").exists()


def test_isolated_atoms_have_the_spin_of_their_ground_state():
    energies = isolated_energies(Recorder(), ["Na", "Cr", "Pd", "Ce"])
    assert energies == pytest.approx({"Na": 0.2, "Cr": 0.7, "Pd": 0.1, "Ce": 0.1})  # a doublet, septet, two singlets


class OfCharge(Recorder):
    """Calculator with a charge, and a spin under another name."""

    default_parameters = {"charge": 0, "mult": 1}


def test_a_spin_that_would_not_reach_the_calculator_is_refused():
    label = EnergyLabeller(f"{__name__}:OfCharge")
    assert label.problem(sodium(charge=1)) is None and label.problem(sodium(multiplicity=2)) is None
    assert "multiplicity is 3, but the calculator" in label.problem(sodium(charge=1, multiplicity=3))
    with_moments = sodium(charge=1)
    with_moments.set_initial_magnetic_moments([1.0, 1.0, 0.0])  # calculators of ASE read them from the atoms
    assert label.problem(with_moments) is None


def test_a_potential_accepts_the_lowest_spin():
    assert EnergyLabeller("gupta")(sodium(multiplicity=2, charge=0)).reason is None
    assert EnergyLabeller("gupta").problem(sodium(multiplicity=2, charge=0)) is None


def test_a_model_refuses_a_charged_cluster():
    with pytest.raises(ValueError, match="its charge is 1, but the model Gupta does not support charges"):
        ModelCalculator(Gupta("Na")).get_potential_energy(sodium(charge=1))


@pytest.mark.parametrize("suffix", [".extxyz", ".traj", ".h5"])
@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        ({"charge": 1}, "its charge is 1, but the model was trained on clusters of charge 0"),
        ({"Total_Charge": -1}, "its charge is -1"),
        ({"multiplicity": 4}, "its multiplicity is 4, but the model was trained on clusters of the lowest spin"),
        ({"charge": 9}, "Na3 has 3 valence electrons"),
    ],
)
def test_a_model_predicts_only_the_charge_that_it_was_trained_on(stated, reason, suffix, tmp_path, capsys):
    """In every format, such a frame is refused with its name, or skipped; also in Python."""
    save_model(trained_on([sodium()]), tmp_path / "model")
    frames, file = [sodium(), sodium(**stated), sodium()], tmp_path / f"na{suffix}"
    if suffix == ".traj":
        frames[1].info = {}
        frames[1].set_initial_charges([stated.get("charge", 0), 0, 0])
        frames[1].set_initial_magnetic_moments([stated.get("multiplicity", 1) - 1, 0, 0])
        if "Total_Charge" in stated:
            frames[1].set_initial_charges([-0.5, -0.5, 0])
        write(file, frames)
    elif suffix == ".h5":
        write_extxyz(tmp_path / "na.extxyz", frames)
        if main(["convert", str(tmp_path / "na.extxyz"), "--out", str(file)]):  # an impossible charge
            assert reason in capsys.readouterr().err
            return
    else:
        write_extxyz(file, frames)
    command = ["predict", str(tmp_path / "model"), str(file), "--out", str(tmp_path / "out.csv")]
    assert main(command) == 2
    line = capsys.readouterr().err
    assert f"{file}, frame 1: " in line and reason in line and "--on-bad skip" in line
    assert main([*command, "--on-bad", "skip"]) == 0
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 3
    with pytest.raises(InputError, match="frame 1: its"):
        Predictor(str(tmp_path / "model"))(frames)
    with pytest.raises(InputError, match="its"):
        ModelCalculator(trained_on([sodium()])).get_potential_energy(frames[1])


def trained_on(frames: list[Atoms], state: tuple[int, bool] = (0, False)) -> SmoothDART:
    model = SmoothDART()
    z = torch.from_numpy(np.concatenate([atoms.numbers for atoms in frames])).long()
    model.domain.set_electronic_state(*state)
    model.domain.add(z, torch.tensor([0, *(len(atoms) for atoms in frames)]).cumsum(0))
    return model


@pytest.mark.parametrize("store", [False, True])
def test_a_data_set_has_one_charge_which_its_model_keeps(store, tmp_path, capsys):
    frames = [sodium(charge=1, energy=-14.3 + 0.1 * number) for number in range(12)]
    write_extxyz(tmp_path / "cations.extxyz", frames)
    write_extxyz(tmp_path / "mixed.extxyz", [*frames, sodium(energy=-22.2)])
    if store:
        for name in ("cations", "mixed"):
            files = [str(tmp_path / f"{name}.extxyz"), "--out", str(tmp_path / f"{name}.h5")]
            assert main(["convert", *files, "--properties", "energy", "--uncompressed"]) == 0
    make, suffix = (OnDiskClusters, "h5") if store else (partial(ClusterDataset, tmp_path), "extxyz")
    with pytest.raises(InputError, match="frame 12: its charge is 0, but 1 in the frames before"):
        make(tmp_path / f"mixed.{suffix}")
    data = TrainingData(make(tmp_path / f"cations.{suffix}"), split="random")
    assert data.electronic_state == (1, False)
    training = EnergyTraining(SmoothDART())
    training.fit_scales(data.batches.blocks(data.split.train), data.references, data.electronic_state)
    save_model(training.model, tmp_path / "model")
    assert Predictor(str(tmp_path / "model"))(frames[:2]).energy.shape == (2,)
    assert main(["info", str(tmp_path / "model")]) == 0
    assert "of 3 atoms, of charge +1" in capsys.readouterr().out
    with pytest.raises(InputError, match="trained on clusters of charge 1 and 0"):
        Ensemble([training.model, trained_on([sodium()])])
    with pytest.raises(InputError, match="frame 0: it states no charge"):
        Predictor(str(tmp_path / "model"))([sodium()])


def test_dynamics_and_relaxations_with_a_model_of_cations_are_of_cations(tmp_path, capsys):
    """A model of cations has no energies of neutral clusters, also where it is a calculator."""
    save_model(model := trained_on([sodium()], (1, False)), tmp_path / "model")
    predicted = Predictor(str(tmp_path / "model"))([sodium(charge=1)]).energy
    assert ModelCalculator(model).get_potential_energy(sodium(charge=1)) == pytest.approx(float(predicted), abs=1e-4)
    with pytest.raises(InputError, match="it states no charge, but the model was trained on clusters of charge 1"):
        ModelCalculator(model).get_potential_energy(sodium())
    write_extxyz(tmp_path / "na.extxyz", [sodium(charge=1), sodium()])
    command = ["relax", str(tmp_path / "na.extxyz"), "--calculator", str(tmp_path / "model"), "--steps", "1"]
    assert main([*command, "--on-bad", "skip", "--out", str(tmp_path / "relaxed.extxyz")]) == 0
    captured = capsys.readouterr()
    assert "1 frame in" in captured.out and "frame 1: it states no charge" in captured.err


def test_frames_of_other_charge_or_spin_have_other_keys():
    frames = [sodium(), sodium(total_charge=1), sodium(multiplicity=2), sodium(multiplicity=4)]
    assert len({key.partition("-2")[0] for key in frame_keys(frames)}) == 4


def test_sodium_cation_by_tblite():
    pytest.importorskip("tblite", reason="needs the extra tblite")
    ion = sodium(charge=1)
    ion.positions[2, 1] = 3.3 * np.sqrt(0.75)
    assert EnergyLabeller("tblite")(ion).atoms.get_potential_energy() == pytest.approx(-14.313, abs=2e-3)
    ion.info["charge"] = 0
    assert EnergyLabeller("tblite")(ion).atoms.get_potential_energy() == pytest.approx(-22.192, abs=2e-3)


@pytest.mark.parametrize("suffix", ["db", "json"])
def test_a_charge_among_the_pairs_of_a_database(tmp_path, suffix):
    """ASE returns the sum of the initial charges in its place."""
    with connect(tmp_path / f"a.{suffix}") as database:
        database.write(Atoms("Na3", [[0, 0, 0], [0, 0, 3.6], [0, 3.2, 1.8]]), charge=1, mass=7.0)
    (block,) = Frames.open(tmp_path / f"a.{suffix}", properties=["mass"])
    assert block.states is not None and block.states[0].charge == 1
    assert block.properties["mass"] == [7.0]
