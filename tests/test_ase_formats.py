"""Formats that ASE reads: what their files state, and what ASE leaves out."""

import re
from typing import ClassVar

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.cluster import Icosahedron
from ase.constraints import FixAtoms
from ase.db import connect
from ase.io import ulm
from ase.io.trajectory import write_atoms
from ase.units import Bohr, Hartree, Rydberg, kcal, mol

from pyg_clusters.datasets import ClusterDataset
from pyg_clusters.errors import InputError
from pyg_clusters.frames import Frames, check_block
from pyg_clusters.frames.ase_formats import stated_in, text_of
from pyg_clusters.frames.electronic_state import stated_state
from pyg_clusters.structures import ClusterEMT

OUTCAR = """
   ions per type =               3   1
  Ionic Valenz
   ZVAL   =  11.00 10.00
   NELECT =      42.0000    total number of electrons
"""
VASPRUN = """
 <i name="NELECT">     42.00000000</i>
  <array name="atomtypes" >
    <rc><c>   3</c><c>Cu</c><c>     63.54600000</c><c>     11.00000000</c><c>  PAW_PBE Cu 22Jun2005 </c></rc>
    <rc><c>   1</c><c>Ni</c><c>     58.69000000</c><c>     10.00000000</c><c>  PAW_PBE Ni 02Aug2007 </c></rc>
  </array>
"""
PWSCF = """
     number of electrons       =        42.00
     atomic species   valence    mass     pseudopotential
     Cu1            11.00    63.54600     Cu( 1.00)
     Ni             10.00    58.69340     Ni( 1.00)

     site n.     atom                  positions (alat units)
         1        Cu1 tau(   1) = (   0.0000000   0.0000000   0.0000000  )
         2        Cu1 tau(   2) = (   0.2000000   0.0000000   0.0000000  )
         3        Cu1 tau(   3) = (   0.0000000   0.2000000   0.0000000  )
         4        Ni  tau(   4) = (   0.0000000   0.0000000   0.2000000  )
"""
ORCA = """
 Total Charge           Charge          ....   -1
 Multiplicity           Mult            ....    3
"""
GAUSSIAN = """ Entering Gaussian System, Link 0=g16
 Charge =  1 Multiplicity = 1
                          Input orientation:
 ---------------------------------------------------------------------
 Center     Atomic      Atomic             Coordinates (Angstroms)
 Number     Number       Type             X           Y           Z
 ---------------------------------------------------------------------
      1         11           0        0.000000    0.000000    0.000000
      2         11           0        3.400000    0.000000    0.000000
      3         11           0        1.700000    2.944486    0.000000
 ---------------------------------------------------------------------
 SCF Done:  E(RPBE-PBE) =  -486.0     A.U. after   10 cycles
"""


MOL_ATOM = "    0.0000    0.0000   -2.8000 Ga  0  %d  0  0  0  0\n"  # with a code of its charge


@pytest.mark.parametrize(
    ("kind", "text", "stated"),
    [
        ("vasp-out", OUTCAR, {"charge": 1}),
        ("vasp-out", OUTCAR.replace("42.", "43."), {}),
        ("vasp-out", OUTCAR.replace("42.0", "42.5"), {"charge": 0.5}),
        ("vasp-xml", VASPRUN, {"charge": 1}),
        ("espresso-out", PWSCF, {"charge": 1}),
        ("espresso-out", PWSCF.replace("42.", "43."), {}),
        ("gaussian-out", GAUSSIAN, {"charge": 1, "multiplicity": 1}),
        ("gaussian-in", "# pbe\n\nNa\n\n-1,1\nNa 0 0 0\nNa 0 0 3\n\n1 2\n", {"charge": -1, "multiplicity": 1}),
        ("orca-output", 2 * ORCA, {"charge": -1, "multiplicity": 3}),
        ("nwchem-out", "   Charge           :     1\n   Spin multiplicity:     2\n", {"charge": 1, "multiplicity": 2}),
        ("nwchem-out", "  charge          =   1.00\n", {"charge": 1}),
        ("gamess-us-out", " CHARGE OF MOLECULE  =   -1\n SPIN MULTIPLICITY  =  1\n", {"charge": -1, "multiplicity": 1}),
        ("aims-output", "  Charge =  -1.000000E+00: Charged system requested.\n", {"charge": -1}),
        ("castep-castep", " net   charge of system                         :   1.000    \n", {"charge": 1}),
        ("gpaw-out", "Densities:\n  Total Charge: -1.000000\n", {"charge": -1}),
        ("espresso-in", "&SYSTEM\n  ibrav=0, tot_charge = +1.0\n", {"charge": 1}),
        ("cp2k-restart", "     &DFT\n       CHARGE  1\n       MULTIPLICITY  2\n", {"charge": 1, "multiplicity": 2}),
        ("turbomole", "$coord\n 0 0 0 cu\n$eht charge=-1 unpaired=2\n$end\n", {"charge": -1, "unpaired": 2}),
        ("sdf", "M  CHG  2   1   1   2  -2\nM  CHG  1   3   2\nM  END\n", {"charge": 1}),
        ("mol", MOL_ATOM % 3 + MOL_ATOM % 0 + MOL_ATOM % 5 + MOL_ATOM % 6, {"charge": -2}),
        ("mol", MOL_ATOM % 3 + "M  CHG  1   1  -1\nM  END\n", {"charge": -1}),
        ("mol", MOL_ATOM % 0, {}),
        ("turbomole", "$coord\n 0 0 0 cu\n$chrg 1\n$end\n", {"charge": 1}),
        ("xsf", "", {}),
    ],
)
def test_charge_and_spin_that_outputs_state(tmp_path, kind, text, stated):
    (tmp_path / "output").write_text(text)
    assert stated_in(tmp_path / "output", text_of(tmp_path / "output", kind), kind) == stated


class ChargedEMT(EMT):
    """Calculator with a charge and a multiplicity among its parameters, as of GPAW or ORCA."""

    default_parameters: ClassVar = {**EMT.default_parameters, "charge": 0, "mult": None}


@pytest.mark.parametrize("name", ["a.traj", "a.db", "a.json", "a.gpw"])
def test_charge_and_spin_of_a_calculator(tmp_path, name):
    atoms = Atoms("Cu3", [[0, 0, 0], [2.5, 0, 0], [0, 2.5, 0]])
    for parameters, info, charge in (
        ({"charge": 1, "mult": 3}, {}, 1),
        ({"charge": 1, "mult": 3}, {"charge": -1, "multiplicity": 3}, -1),
        ({"charge": 1, "mult": 3}, {"charge": 0, "spin_multiplicity": 2}, 0),
        ({"charge": 0}, {}, None),
    ):
        atoms.calc, atoms.info = ChargedEMT(**parameters), info
        atoms.get_potential_energy()
        (tmp_path / name).unlink(missing_ok=True)
        if name == "a.gpw":
            with ulm.open(tmp_path / name, "w", tag="gpaw") as file:
                file.write(version=3)
                write_atoms(file.child("atoms"), atoms)
                file.child("results").write(energy=-1.0)
                file.child("wave_functions").write(fermi_levels=np.zeros(1))
                file.child("parameters").write(**parameters)
        elif name == "a.traj":
            atoms.write(tmp_path / name)
        else:
            with connect(tmp_path / name) as database:
                database.write(atoms, data=info)
        (block,) = Frames.open(tmp_path / name)
        if name == "a.gpw" and info:
            continue  # which holds no info
        if charge is None:
            assert block.states is None
        else:
            assert (block.states[0].charge, block.states[0].multiplicity) == (charge, 3 if charge else 2)
        state = stated_state(atoms)  # of the object itself, as for predictions
        assert state is None if charge is None else state == block.states[0]


def test_an_output_of_two_charges_is_refused(tmp_path):
    (tmp_path / "job.out").write_text(ORCA + ORCA.replace("-1", "0"))
    with pytest.raises(InputError, match=r"job.out: states the charge -1 and 0; split it into two files"):
        stated_in(tmp_path / "job.out", text_of(tmp_path / "job.out", "orca-output"), "orca-output")
    with pytest.raises(InputError, match=r"pw.out: states 42.0 and 43.0 electrons; split it into two files"):
        stated_in(tmp_path / "pw.out", PWSCF + PWSCF.replace("42.", "43."), "espresso-out")


def test_a_cation_of_gaussian_is_no_neutral_cluster(tmp_path):
    (tmp_path / "na3.log").write_text(GAUSSIAN)
    (block,) = Frames.open(tmp_path / "na3.log", properties=["energy"])
    with pytest.raises(InputError, match="its charge is 1, but the model was trained on clusters of charge 0"):
        check_block(block, state=(0, False))
    assert len(check_block(block, state=(1, False))[0]) == 1


@pytest.mark.parametrize("length", [Bohr, 1.0])
def test_n2p2_in_angstrom_is_not_taken_for_bohr(tmp_path, length):
    """n2p2 accepts any units, and ASE assumes those of RuNNer."""
    cluster = Icosahedron("Au", 2)
    atoms = "".join(f"atom {x:.6f} {y:.6f} {z:.6f} Au 0 0 0 0 0\n" for x, y, z in cluster.positions / length)
    (tmp_path / "input.data").write_text(f"begin\n{atoms}energy -1.0\ncharge 0.0\nend\n")
    frames = Frames.open(tmp_path / "input.data", properties=["energy"])
    if length == 1:
        with pytest.raises(InputError, match="too short for positions in bohr, the unit of RuNNer; convert it to XYZ"):
            list(frames)
        return
    (block,) = frames
    assert block.pos == pytest.approx(cluster.positions, abs=1e-5)
    assert block.properties["energy"] == pytest.approx(-Hartree)


def orca(length: float, energy: float) -> str:
    """Calculation of Na2 with a bond length in Å and an energy in hartree, as in outputs of ORCA."""
    return (
        "CARTESIAN COORDINATES (ANGSTROEM)\n---------------------------------\n"
        f"  Na   0.0   0.0   0.0\n  Na   0.0   0.0   {length}\n\nNumber of atoms                     ...      2\n"
        f"FINAL SINGLE POINT ENERGY     {energy}\nORCA SCF GRADIENT CALCULATION\n"
        f"CARTESIAN GRADIENT\n\n\n   1   Na  :   0.0   0.0   {energy}\n   2   Na  :   0.0   0.0   0.0\n\n"
    )


@pytest.mark.filterwarnings("ignore:Geometry optimization did not converge")
@pytest.mark.parametrize("between", ["ORCA GEOMETRY RELAXATION STEP\n", ""])
def test_several_calculations_of_orca(tmp_path, between):
    """Steps of an optimisation are frames; of steps of dynamics, ASE would mix the first forces and the last energy."""
    steps = between.join([orca(3.0, -10.0), orca(3.1, -11.0)])
    (tmp_path / "na2.out").write_text(f"  * O   R   C   A *\n{steps}  ****ORCA TERMINATED NORMALLY****\n")
    frames = Frames.open(tmp_path / "na2.out", properties=["energy"], atom_properties=["forces"])
    if not between:
        with pytest.raises(
            InputError, match=r"na2.out: contains molecular dynamics or several jobs, of which ASE mixes"
        ):
            list(frames)
        return
    (block,) = frames
    assert block.pos[1::2, 2].tolist() == [3.0, 3.1]
    assert block.properties["energy"] == pytest.approx([-10 * Hartree, -11 * Hartree])
    assert block.atom_properties["forces"][::2, 2] == pytest.approx([10 * Hartree / Bohr, 11 * Hartree / Bohr])


def nwchem(length: float, energy: float, *, geometry: bool = True, gradient: bool = True) -> str:
    """Calculation of Na2 with a bond length in Å and an energy in hartree, as in outputs of NWChem."""
    head = '\n   Geometry "geometry" -> "geometry"\n   ------\n\n Output coordinates in angstroms\n\n'
    head += "  No.  Tag  Charge  X  Y  Z\n ---- ---- ---- ---- ---- ----\n"
    head += f"    1 Na  11.0  0.0  0.0  0.0\n    2 Na  11.0  0.0  0.0  {length}\n\n"
    tail = "    DFT ENERGY GRADIENTS\n\n    atom  coordinates  gradient\n   x  y  z  x  y  z\n"
    tail += f"   1 Na  0.0  0.0  0.0  0.0  0.0  {-energy}\n   2 Na  0.0  0.0  {length / Bohr}  0.0  0.0  {energy}\n\n"
    title = f"    NWChem DFT Module\n    ------\n\n     Total DFT energy =   {energy}\n\n"
    return head * geometry + title + tail * gradient


def test_several_calculations_of_nwchem(tmp_path):
    """ASE combines energies without gradients with the geometry printed after them."""
    trial = nwchem(9.9, -12.0, geometry=False, gradient=False) + " Line search:\n"
    (tmp_path / "na2.nwo").write_text(nwchem(3.0, -10.0) + trial + nwchem(3.1, -11.0))
    (block,) = Frames.open(tmp_path / "na2.nwo", properties=["energy"], atom_properties=["forces"])
    assert block.pos[1::2, 2] == pytest.approx([3.0, 3.1])
    assert block.properties["energy"] == pytest.approx([-10 * Hartree, -11 * Hartree])
    assert block.atom_properties["forces"][::2, 2] == pytest.approx([-10 * Hartree / Bohr, -11 * Hartree / Bohr])
    energies = [nwchem(3.0, -10.0, gradient=False), nwchem(3.1, -11.0, gradient=False)]
    (tmp_path / "one.nwo").write_text(energies[0])
    (block,) = Frames.open(tmp_path / "one.nwo", properties=["energy"])
    assert (block.pos[1, 2], block.properties["energy"][0]) == (3.0, pytest.approx(-10 * Hartree))
    (tmp_path / "two.nwo").write_text("".join(energies))
    with pytest.raises(InputError, match=r"two.nwo: contains 2 calculations, of which ASE mixes the energies and"):
        list(Frames.open(tmp_path / "two.nwo"))


def test_forces_of_gaussian_in_another_orientation_are_left_out(tmp_path):
    forces = "".join(f"      {atom}       11           0.0   0.0    0.0{atom}\n" for atom in (1, 2, 3))
    rule = " " + "-" * 67 + "\n"
    table = f"{rule} Center   Atomic   Forces (Hartrees/Bohr)\n Number     Number   X   Y\n{rule}"
    log = GAUSSIAN + table + forces + rule
    (tmp_path / "na3.log").write_text(log)
    (block,) = Frames.open(tmp_path / "na3.log", atom_properties=["forces"])
    assert block.atom_properties["forces"][2, 2] == pytest.approx(0.03 * Hartree / Bohr)
    (tmp_path / "na3.log").write_text(log.replace("Input orientation", "Standard orientation"))
    with pytest.warns(UserWarning, match="the forces are left out: they are in the input orientation"):
        (block,) = Frames.open(tmp_path / "na3.log", properties=["energy"], with_atoms=True)
    assert block.atoms is not None and "forces" not in block.atoms[0].calc.results


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("md.pdb", "TITLE     Traj: positions{atomic_unit} Step:  0 Bead:  0\nATOM\n", "is in units that ASE does not"),
        ("OUTCAR", " VRHFIN =Cu: d10\n" + OUTCAR + " VRHFIN =Au: d10\n" + OUTCAR, "contains 2 runs of different atoms"),
        ("OUTCAR.1", OUTCAR + OUTCAR.replace("42.", "43."), "contains 2 runs of different atoms or charges"),
        ("a.log", GAUSSIAN + GAUSSIAN, "contains 2 jobs, but ASE reads only the first; write each to its own file"),
        ("vasprun.xml", 2 * "<modeling>\n</modeling>\n", "contains 2 jobs, but ASE reads only the first"),
        ("a.xsf", 2 * "ATOMS\nAu 0 0 0\nAu 0 0 2.6\n", "contains 2 structures, but ASE reads only the first"),
        ("a.res", 2 * "TITL a -1.0\nEND\n", "contains 2 structures, but ASE reads only the first"),
        (
            "a.out",
            "*GAMESS\n" + 2 * " FINAL RHF ENERGY IS  -1.0 AFTER  9 ITERATIONS\n",
            "contains 2 calculations, of which ASE",
        ),
        ("a.dat", " $DATA\n $END\n" + 2 * " $GRAD\n $END\n", "contains 2 calculations, of which ASE mixes"),
        ("a.nc", "CDF\x01 type coordinates", "names no elements; convert it to DCD"),
        ("b.nc", "CDF\x01 program\0\x02\x06LAMMPS atom_types coordinates", "names no elements; convert it to DCD"),
        ("a.restart", " &GLOBAL\n &END GLOBAL\n &FORCE_EVAL\n   &SUBSYS\n     &COORD\n", "no complete section &SUBSYS"),
        ("a.gro", "t\n    2\n    1UNK     Au    1   0.100   0.100   0.100\n", "states 2 atoms, but has 1; correct"),
        ("a.nwi", "geometry units angstrom\n  Au 0 0 0\n", "no complete section 'geometry'; copy it again"),
    ],
)
def test_files_that_ase_would_misread_are_refused(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words):
        list(Frames.open(tmp_path / name))


@pytest.mark.parametrize("kind", ["vasp", "vasp with constraints", "gen", "xsf", "lammps-data", "espresso-in", "mol"])
def test_more_atoms_than_a_file_states_are_refused(tmp_path, kind):
    """ASE would leave the last atom out."""
    trimer = Atoms("Au3", [[5, 5, 5], [5, 5, 7.6], [5, 7.6, 5]], cell=[12, 12, 12], pbc=True)
    file = tmp_path / "a"
    if kind == "mol":
        rows = "".join(f"{x:10.4f}{y:10.4f}{z:10.4f} Au  0  0\n" for x, y, z in trimer.positions)
        file = tmp_path / "a.mol"
        file.write_text(f"Au3\n  test\n\n  3  0  0  0  0  0  0  0  0  0  1 V2000\n{rows}M  END\n")
    elif kind.startswith("vasp"):
        file = tmp_path / "POSCAR"
        trimer.set_constraint(FixAtoms([0]) if "constraints" in kind else None)
        trimer.write(file, format="vasp")
        file.write_text(file.read_text() + "\n" + 3 * "  0.1 0.0 0.0\n")  # velocities
    else:
        file = tmp_path / {"lammps-data": "a.data", "espresso-in": "a.pwi"}.get(kind, f"a.{kind}")
        options = {"lammps-data": {"masses": True}, "espresso-in": {"pseudopotentials": {"Au": "Au.upf"}}}
        trimer.write(file, format=kind, **options.get(kind, {}))
    (block,) = Frames.open(file)
    assert block.z.tolist() == [79, 79, 79]
    text = file.read_text()
    stated = re.search(r"^ *3 +[CS]|3 1$|3 atoms|= 3$|  3  0|^ *3 *$", text, re.MULTILINE)
    assert stated is not None
    file.write_text(text[: stated.start()] + stated[0].replace("3", "2") + text[stated.end() :])
    with pytest.raises(InputError, match="states 2 atoms, but has 3; correct their number"):
        list(Frames.open(file))


@pytest.mark.parametrize("label", ["GA", "Gold"])
def test_labels_of_a_poscar_that_are_no_symbols_are_named(tmp_path, label):
    (tmp_path / "POSCAR").write_text(f"t\n1\n9 0 0\n0 9 0\n0 0 9\n{label}\n1\nDirect\n0 0 0\n")
    with pytest.raises(InputError, match=f"'{label}' is not an element symbol; write symbols such as Ga above the"):
        list(Frames.open(tmp_path / "POSCAR"))


def test_forces_of_aenet_are_in_ev(tmp_path):
    """ASE reads forces of XSF files in hartree/Å, as XCrySDen writes them."""
    atoms = "ATOMS\nAu 0.0 0.0 0.0 0.0 0.0 -0.5\nAu 0.0 0.0 2.6 0.0 0.0 0.5\n"
    (tmp_path / "a.xsf").write_text(f"# total energy = -2.5 eV\n\n{atoms}")
    (block,) = Frames.open(tmp_path / "a.xsf", properties=["energy"], atom_properties=["forces"])
    assert block.properties["energy"].tolist() == [-2.5]
    assert block.atom_properties["forces"][:, 2] == pytest.approx([-0.5, 0.5])
    (tmp_path / "b.xsf").write_text(atoms)
    (block,) = Frames.open(tmp_path / "b.xsf", atom_properties=["forces"])
    assert block.atom_properties["forces"][1, 2] == pytest.approx(0.5 * Hartree)


@pytest.mark.parametrize("site", ["", "Ag1 Ag 0.5 0.5 0.5 0.5\n"])
def test_partly_occupied_sites_are_refused(tmp_path, site):
    """ASE keeps the element of the largest share of a site."""
    cell = "".join(
        f"_cell_length_{axis} 20\n_cell_angle_{angle} 90\n"
        for axis, angle in zip("abc", ("alpha", "beta", "gamma"), strict=True)
    )
    columns = "".join(
        f"_atom_site_{name}\n" for name in ("label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy")
    )
    share = 0.5 if site else 1.0
    text = f"data_a\n{cell}loop_\n{columns}Au1 Au 0.5 0.5 0.5 {share}\n{site}Au2 Au 0.5 0.5 0.63 1.0\n"
    (tmp_path / "a.cif").write_text(text)
    frames = Frames.open(tmp_path / "a.cif")
    if site:
        with pytest.raises(InputError, match=r"a.cif, frame 0: has partly occupied sites; keep the occupied ones only"):
            list(frames)
    else:
        assert next(iter(frames)).z.tolist() == [79, 79]


@pytest.mark.parametrize(("length", "of_forces"), [("Ang", "Ang"), ("Bohr", "Bohr"), ("Bohr", "Ang"), ("Ang", "Bohr")])
def test_units_of_schnetpack(tmp_path, length, of_forces):
    frames = []
    for number in range(3):
        atoms = Icosahedron("Cu", 2)
        atoms.set_cell(None)
        atoms.rattle(0.1, seed=number)
        atoms.calc = ClusterEMT()
        frames.append(atoms)
    unit, unit_of_forces = ({"Ang": 1.0, "Bohr": Bohr}[name] for name in (length, of_forces))
    with connect(tmp_path / "cu.db") as database:
        database.metadata = {
            "_distance_unit": length,
            "_property_unit_dict": {"energy": "eV", "U": "kcal/mol", "forces": f"kcal/mol/{of_forces}"},
        }
        for atoms in frames:
            energy, forces = (values / (kcal / mol) for values in (atoms.get_potential_energy(), atoms.get_forces()))
            scaled = Atoms(atoms.numbers, atoms.positions / unit)
            values = {"U": np.array([energy]), "energy": np.zeros(1), "forces": forces * unit_of_forces}
            database.write(scaled, data=values)
    data = {"files": tmp_path / "cu.db", "target": "U", "forces": True}
    with pytest.raises(InputError, match=r"states U_unit=kcal/mol, but .*energy_unit='kcal/mol'"):
        ClusterDataset(tmp_path, **data)
    if (length, of_forces) == ("Ang", "Bohr"):
        with pytest.raises(InputError, match=r"states forces_unit=kcal/mol/Bohr, but the forces are "):
            ClusterDataset(tmp_path, energy_unit="kcal/mol", **data)
        return
    dataset = ClusterDataset(tmp_path, energy_unit="kcal/mol", **data)
    for graph, atoms in zip(dataset, frames, strict=True):
        assert graph.y.item() == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
        assert graph.force.numpy() == pytest.approx(atoms.get_forces(), abs=1e-5)
        assert (graph.pos[1] - graph.pos[0]).norm().item() == pytest.approx(atoms.get_distance(0, 1), abs=1e-5)
    if length == "Bohr":
        with pytest.raises(InputError, match="states the unit of length 'Bohr'; omit length_unit"):
            ClusterDataset(tmp_path, energy_unit="kcal/mol", length_unit="Bohr", **data)


@pytest.mark.parametrize("cut", [" 0.3\n", "     atom    2", "number of scf"])
def test_quantum_espresso_is_still_writing(tmp_path, cut):
    """The complete frames of a relaxation are used, whether it is stopped within forces or within positions."""
    positions = [[0, 0, 2.5 + 0.1 * number] for number in range(3)]
    text = """
     Program PWSCF v.7.2 starts on  1Jan2024 at 10:00:00
     lattice parameter (alat)  =      20.0000  a.u.
     number of atoms/cell      =            2
     number of electrons       =        22.00
     celldm(1)=  20.000000  celldm(2)=   0.000000  celldm(3)=   0.000000
     crystal axes: (cart. coord. in units of alat)
               a(1) = (   1.000000   0.000000   0.000000 )
               a(2) = (   0.000000   1.000000   0.000000 )
               a(3) = (   0.000000   0.000000   1.000000 )
   Cartesian axes

     site n.     atom                  positions (alat units)
         1        Au  tau(   1) = (   0.0000000   0.0000000   0.0000000  )
         2        Au  tau(   2) = (   0.0000000   0.0000000   0.2362156  )

     number of k points=     1
                       cart. coord. in units 2pi/alat
        k(    1) = (   0.0000000   0.0000000   0.0000000), wk =   2.0000000

"""
    for number, position in enumerate(positions):
        if number:
            text += f"ATOMIC_POSITIONS (angstrom)\nAu 0.0 0.0 0.0\nAu {' '.join(map(str, position))}\n\n"
        text += f"     number of scf cycles    = {number}\n!    total energy              =   {-1.0 - number} Ry\n\n"
        text += "     Forces acting on atoms (cartesian axes, Ry/au):\n\n"
        text += "     atom    1 type  1   force =  0.1 0.2 0.3\n     atom    2 type  1   force =  0.1 0.2 0.3\n"
    (tmp_path / "relax.out").write_text(text[: text.rindex(cut)])
    with pytest.warns(UserWarning, match="is incomplete, perhaps still being written; its 2 complete frames are used"):
        (block,) = Frames.open(tmp_path / "relax.out", properties=["energy"], atom_properties=["forces"])
    assert block.pos[1::2, 2] == pytest.approx([2.5, 2.6], abs=1e-5)
    assert block.properties["energy"] == pytest.approx([-Rydberg, -2 * Rydberg])
