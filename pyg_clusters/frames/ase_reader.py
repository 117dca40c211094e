"""Reader of the formats of ASE, and conversion of ASE objects to blocks."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols, covalent_radii
from ase.db import connect
from ase.io import Trajectory, iread, ulm
from ase.io.dlp4 import DLP4_LABELS_KEY
from ase.outputs import all_outputs
from ase.units import Hartree

from pyg_clusters.errors import InputError, describe_error
from pyg_clusters.frames.ase_formats import (
    OF_AENET,
    are_forces_rotated,
    check_format,
    is_unfinished,
    stated_in,
    text_of,
)
from pyg_clusters.frames.block import (
    BadFrame,
    FrameBlock,
    LazyAtoms,
    ReadOptions,
    UnlabelledFrame,
    UnrecoverableFrame,
    arrays_of,
    column,
    concatenated,
    kind_of,
    names_found,
)
from pyg_clusters.frames.electronic_state import state_of_calculator, stated_states
from pyg_clusters.frames.paths import unpacked
from pyg_clusters.frames.provenance import stated_origins
from pyg_clusters.frames.text import atomic_number, unknown_label
from pyg_clusters.frames.xyz_frame import convert_to_angstrom
from pyg_clusters.pairs import nearest_distances
from pyg_clusters.units import LENGTH_NAMES

LABELS: Mapping[str, str] = {"gromacs": "atomtypes", **dict.fromkeys(("dlp4", "dlp-history"), DLP4_LABELS_KEY)}
"""Array of the labels of atoms, by format, for formats whose labels ASE does not read as elements correctly."""

SHORTEST: float = 0.65
"""Median distance to the nearest atom, in bond lengths, below which positions are in another unit."""


def block_of_frames(path: Path, read: Mapping[int, Atoms | BadFrame], options: ReadOptions) -> FrameBlock:
    """Block of frames of a file, by index; frames without a requested property, or with two, are unreadable."""
    frames: dict[int, Atoms] = {}
    unreadable: list[BadFrame] = []
    for number, frame in read.items():
        bad = frame if isinstance(frame, BadFrame) else _fault(path, number, frame, options)
        if bad is not None:
            unreadable.append(bad)
        elif isinstance(frame, Atoms):
            frames[number] = frame
    properties, atom_properties = {}, {}
    try:
        for key in options.properties:
            properties[key] = column([frame_property(atoms, key) for atoms in frames.values()])
        for key in options.atom_properties:
            parts = [np.asarray(atom_property(atoms, key)) for atoms in frames.values()]
            atom_properties[key] = concatenated(parts) if parts else np.zeros(0)
    except ValueError as error:  # values of different shapes
        raise InputError(f"{path}: property {key!r} differs in shape between frames") from error
    return FrameBlock(
        str(path),
        np.fromiter(frames, dtype=np.int64),
        *arrays_of(list(frames.values())),
        properties=properties,
        atom_properties=atom_properties,
        atoms=LazyAtoms(partial(frames.__getitem__, number) for number in frames) if options.with_atoms else None,
        unreadable=unreadable,
        origin=stated_origins(str(path), frames, [atoms.info for atoms in frames.values()]),
        states=stated_states(frames.values()),
    )


def _fault(path: Path, number: int, atoms: Atoms, options: ReadOptions) -> BadFrame | None:
    if reason := no_element(atoms, 0):
        return BadFrame(str(path), number, reason)
    for key in (*options.properties, *options.atom_properties):
        if reason := contradiction(atoms, key):
            return BadFrame(str(path), number, reason)
    lacks = [key for key in options.properties if frame_property(atoms, key) is None]
    lacks_of_atoms = [key for key in options.atom_properties if atom_property(atoms, key) is None]
    if not lacks and not lacks_of_atoms:
        return None
    key, kind = (lacks[0], "") if lacks else (lacks_of_atoms[0], " per atom")
    per_frame, per_atom = _keys_found(atoms)
    reason = f"no property {key!r}{kind}; {names_found(per_frame, per_atom)}"
    found = (*per_frame, *per_atom)
    if lacks and isinstance(comment := atoms.info.get("comment"), str):
        reason += f"; the comment is {comment[:40]!r}: write {key}=VALUE there"
        found = tuple(name for name in found if name != "comment")
    return UnlabelledFrame(str(path), number, reason, key, found)


def no_element(atoms: Atoms, smallest: int) -> str | None:
    """Fault of a structure with an atomic number that is no element; ``smallest`` is 0 if there may be dummy atoms."""
    unknown = atoms.numbers[(atoms.numbers < smallest) | (atoms.numbers >= len(chemical_symbols))]
    return f"has an atom of atomic number {unknown[0]}, which is not an element" if unknown.size else None


def frame_property(atoms: Atoms, key: str) -> Any:
    """Value per frame from ``info`` or the results of the calculator, if there is one."""
    for values in (atoms.info, _results(atoms)):
        if values.get(key) is not None:
            return values[key]
    return None


def atom_property(atoms: Atoms, key: str) -> np.ndarray | None:
    """Values per atom from ``arrays`` or the results of the calculator, if there are any."""
    if key in atoms.arrays:
        return atoms.arrays[key]
    results = _results(atoms)
    return np.asarray(results[key]) if key in results and _is_of_atoms(key, results[key], len(atoms)) else None


def contradiction(atoms: Atoms, key: str) -> str | None:
    """Difference of a value in ``info`` or ``arrays`` from the result of the calculator of this name, if any."""
    result = _results(atoms).get(key)
    for holder, values in (("info", atoms.info), ("arrays", atoms.arrays)):
        value = values.get(key)
        if value is None or result is None or np.shape(value) != np.shape(result):
            continue
        if kind_of(value) != "a number" or kind_of(result) != "a number":
            continue
        if not np.allclose(value, result, rtol=1e-9, atol=1e-4, equal_nan=True):
            first = np.unravel_index(np.argmax(np.abs(np.subtract(value, result))), np.shape(value))
            return (
                f"{key!r} is {np.asarray(value)[first]} in its {holder}, but {np.asarray(result)[first]} among the "
                "results of its calculator; remove one of them"
            )
    return None


def _is_of_atoms(key: str, value: Any, num_atoms: int) -> bool:
    """Whether a result of a calculator is per atom, as ASE defines for its own results."""
    if key in all_outputs:
        return bool(all_outputs[key].shapespec) and all_outputs[key].shapespec[0] == "natoms"
    return np.shape(value)[:1] == (num_atoms,)


def _results(atoms: Atoms) -> dict:
    return atoms.calc.results if atoms.calc is not None else {}


def _keys_found(atoms: Atoms) -> tuple[list[str], list[str]]:
    """Names of the values per frame and per atom."""
    results = {key: value for key, value in _results(atoms).items() if value is not None}
    of_atoms = {key for key, value in results.items() if _is_of_atoms(key, value, len(atoms))}
    per_atom = sorted(of_atoms | (set(atoms.arrays) - {"numbers", "positions"}))
    return sorted(set(atoms.info) | set(results) - of_atoms), per_atom


def ase_frames(path: Path, kind: str, length: float = 1.0) -> Iterator[Atoms | BadFrame]:
    """Read the frames, or their faults, of a file in a format of ASE; ``length`` is the unit in Å that the user states.

    The complete frames of a run of VASP or Quantum ESPRESSO that is still being written are used, with a warning.
    """
    with unpacked(path) as copy:
        text = text_of(copy, kind)
        check_format(path, text, kind)
        stated, rotated = stated_in(path, text, kind), are_forces_rotated(path, text, kind)
        of_aenet = OF_AENET.search(text) if kind == "xsf" else None
        del text  # it may be large
        unfinished = is_unfinished(copy, kind)
        if kind == "traj":
            frames = _trajectory(path, copy)
        elif kind in ("db", "json"):
            frames = _database(path, copy, kind, length)
        else:
            frames = _frames(path, copy, kind, unfinished)
        number = 0
        for number, frame in enumerate(frames, start=1):  # noqa: B007
            if isinstance(frame, Atoms):
                frame.info |= stated
                frame.info |= state_of_calculator(frame, getattr(frame.calc, "parameters", None))
                if rotated and frame.calc is not None:
                    frame.calc.results.pop("forces", None)
                if of_aenet:
                    frame.calc = _results_of_aenet(frame, float(of_aenet[1]))
            yield frame
        if unfinished and number:
            warnings.warn(
                f"{path}: the file is incomplete, perhaps still being written; its {number} complete frames are used",
                stacklevel=2,
            )


def _frames(path: Path, copy: Path, kind: str, unfinished: bool) -> Iterator[Atoms | BadFrame]:
    frames = iread(str(copy), index=":", format=kind, do_not_split_by_at_sign=True)
    frames = _models(frames) if kind == "proteindatabank" else frames
    frames = _calculations_of_nwchem(frames) if kind == "nwchem-out" else frames
    for number in count():
        try:
            atoms = next(frames)
        except StopIteration:
            return
        except Exception as error:  # ASE's readers raise errors of many kinds
            if number == 0:
                raise InputError(f"{path}: ASE cannot read it as {kind} ({describe_error(error)})") from error
            if not unfinished:
                reason = f"cannot be read ({describe_error(error)}), nor can any frame after it"
                yield UnrecoverableFrame(str(path), number, reason)
            return
        if (forces := _results(atoms).get("forces")) is not None and np.shape(forces) != atoms.positions.shape:
            if not unfinished:
                yield BadFrame(str(path), number, f"has forces of the shape {np.shape(forces)} for {len(atoms)} atoms")
                continue
            return
        if "" in atoms.arrays.get("residuenames", ()):  # blank in files of PDB and GROMACS, as no column of XYZ can be
            del atoms.arrays["residuenames"]
        if kind == "gpw":
            with ulm.open(copy) as reader:
                parameters = reader.parameters.asdict() if "parameters" in reader else None
            atoms.info |= state_of_calculator(atoms, parameters)
        if kind == "runnerdata" and _is_compressed(atoms):
            reason = "its bonds are too short for positions in bohr, the unit of RuNNer; convert it to XYZ in Å and eV"
            yield BadFrame(str(path), number, reason)
            continue
        if kind == "cif" and _is_disordered(atoms):
            reason = "has partly occupied sites; keep the occupied ones only, with an occupancy of 1"
            yield BadFrame(str(path), number, reason)
            continue
        yield _with_elements(path, number, atoms, LABELS[kind]) if kind in LABELS else atoms


def _is_disordered(atoms: Atoms) -> bool:
    """Whether a CIF file states that a site is partly occupied; ASE takes one of its elements for the only one."""
    shares = [share for site in atoms.info.get("occupancy", {}).values() for share in site.values()]
    return any(share not in (1, ".", "?") for share in shares)


def _results_of_aenet(atoms: Atoms, energy: float) -> SinglePointCalculator:
    """Energy in eV, and the forces of an XSF file of ænet in eV/Å, which ASE multiplied by a hartree in eV."""
    forces = _results(atoms).get("forces")
    return SinglePointCalculator(atoms, energy=energy, forces=None if forces is None else forces / Hartree)


def _is_compressed(atoms: Atoms) -> bool:
    """Whether most atoms are much closer to another one than a bond length, as with positions in Å read as bohr."""
    if len(atoms) < 2:
        return False
    nearest = nearest_distances(torch.from_numpy(atoms.positions)).numpy()
    return bool(np.median(nearest / (2 * covalent_radii[atoms.numbers])) < SHORTEST)


def _models(frames: Iterable[Atoms]) -> Iterator[Atoms]:
    """Models of a PDB file, all in its first cell (one of 1 Å means none), without the empty one for a last ``END``."""
    cell = np.zeros((3, 3))
    for atoms in filter(len, frames):
        cell = atoms.cell.array if atoms.cell.any() else cell
        atoms.set_cell(None if np.array_equal(cell, np.eye(3)) else cell)
        atoms.pbc = atoms.cell.any()
        yield atoms


def _calculations_of_nwchem(frames: Iterable[Atoms]) -> Iterator[Atoms]:
    """Steps of an optimisation, without its line searches, whose energies ASE combines with other geometries."""
    frames = list(frames)
    yield from [atoms for atoms in frames if "forces" in _results(atoms)] or frames


def _with_elements(path: Path, number: int, atoms: Atoms, name: str) -> Atoms | BadFrame:
    """Structure with elements by the labels of its atoms; ASE reads ``AU`` as uranium, or ``CU`` as carbon."""
    labels = atoms.arrays[name].tolist()
    if name == DLP4_LABELS_KEY:  # the labels without what ASE takes for the symbols
        labels = [symbol + label for symbol, label in zip(atoms.symbols, labels, strict=True)]
    numbers = [atomic_number(label) for label in labels]
    if None in numbers:
        return BadFrame(str(path), number, unknown_label(labels[numbers.index(None)]))
    atoms.numbers = numbers
    return atoms


def _trajectory(path: Path, copy: Path) -> Iterator[Atoms | BadFrame]:
    """Frames of ASE's own format, each of which can be read even if others are corrupted."""
    try:
        trajectory = Trajectory(str(copy))
    except Exception as error:  # ASE's readers raise errors of many kinds
        raise InputError(f"{path}: ASE cannot read it as traj ({describe_error(error)})") from error
    with trajectory:
        for number in range(len(trajectory)):
            try:
                atoms = trajectory[number]
            except Exception as error:  # ASE's readers raise errors of many kinds
                yield BadFrame(str(path), number, f"cannot be read ({describe_error(error)})")
                continue
            yield atoms


def _database(path: Path, copy: Path, kind: str, length: float) -> Iterator[Atoms | BadFrame]:
    """Rows of an ASE database with their ``key_value_pairs`` and ``data``.

    A database of SchNetPack states its unit of length, from which positions and forces are converted to Å, and the unit
    of each property, which becomes the value ``NAME_unit`` of the frames.
    """
    try:
        database = connect(str(copy), type=kind, serial=True)
        rows, metadata = list(database.select()), database.metadata
    except Exception as error:  # ASE's readers raise errors of many kinds
        raise InputError(f"{path}: ASE cannot read it as {kind} ({describe_error(error)})") from error
    distance, units = metadata.get("_distance_unit", "Ang"), metadata.get("_property_unit_dict", {})
    stated = LENGTH_NAMES.get(str(distance).lower())
    if stated is None or (stated != 1 and length != 1):
        remedy = "convert the positions to Å" if stated is None else "omit length_unit, as positions are converted"
        raise InputError(f"{path}: states the unit of length {distance!r}; {remedy}")
    for number, row in enumerate(rows):
        try:
            atoms = row.toatoms()
            pairs = {key: vars(row)[key] for key in row.key_value_pairs}  # row.charge would be a sum over the atoms
            values = {**row.get("data", {}), **pairs}
        except Exception as error:  # ASE's readers raise errors of many kinds
            yield BadFrame(str(path), number, f"cannot be read ({describe_error(error)})")
            continue
        for key, value in values.items():
            if isinstance(value, np.ndarray) and value.shape[:1] == (len(atoms),) and not atoms.has(key):
                atoms.set_array(key, value)
            else:
                atoms.info[key] = value
            atoms.info |= {f"{key}_unit": units[key]} if units.get(key) else {}
        convert_to_angstrom(atoms, stated)
        atoms.info |= state_of_calculator(atoms, row.get("calculator_parameters"))
        yield atoms
