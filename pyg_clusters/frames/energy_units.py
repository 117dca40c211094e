"""Units of energies and forces, as stated by files."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ase.io.extxyz import key_val_str_to_dict

from pyg_clusters.errors import InputError
from pyg_clusters.frames.block import BadFrame
from pyg_clusters.frames.paths import expand_paths, file_format
from pyg_clusters.frames.provenance import EARLIER, ENERGY_PREDICTION, INITIAL
from pyg_clusters.frames.reader import read_blocks
from pyg_clusters.frames.store_layout import open_store, unit_of_label
from pyg_clusters.frames.xyz_comment import FORCE_UNIT, comment_for_ase
from pyg_clusters.frames.xyz_reader import text_frames
from pyg_clusters.units import (
    ENERGY_UNITS,
    GRADIENT,
    PUNCTUATION,
    UNSUPPORTED,
    ForceUnit,
    force_unit,
    force_unit_in_name,
    is_per_atom,
    known_unit,
    unit_in_name,
    unit_of,
)

UNIT_KEYS: re.Pattern[str] = re.compile(r"(energy|label|target)?_?units?(_?(of_)?energy)?", re.IGNORECASE)
"""Matches names under which frames state the unit of their energies."""

EARLIER_UNIT_KEYS: re.Pattern[str] = re.compile(f"({EARLIER})?{UNIT_KEYS.pattern}", re.IGNORECASE)
"""Matches such names also in frames that have got a new energy, see :func:`replace_energies`."""

ENERGY_LABELS: tuple[str, ...] = ("energy", "binding_energy")
"""Names of the energies that this package calculates, in eV."""

DIGITS: bytes = b"0123456789.+-"
"""Characters of numbers."""

WITH_INFO: frozenset[str] = frozenset({"traj", "db", "json"})
"""Formats other than XYZ whose frames may state a unit."""


class StatedUnit(NamedTuple):
    """Unit of energies stated by a file."""

    where: str  #: File and frame.
    text: str  #: The statement.
    name: str  #: Name of the unit.
    energy: float  #: Value of the unit in eV.


def stated_unit(file: Path, target: str) -> StatedUnit | None:
    """Unit of the energies ``target`` that a file states, if any; see :func:`stated_units`."""
    return stated_units(file, [target])[target]


def stated_units(file: Path, targets: Sequence[str]) -> dict[str, StatedUnit | None]:
    """Unit of each of the energies that the frames of a file state, if any.

    The unit is stated by a key such as ``energy_unit``, at the end of the name (``energy_Ha``), or after the value
    (``energy=-3.5 Ha``). Comments of CP2K, Molpro, xtb and ORCA state hartree.

    Raises:
        InputError: If it is not a known unit of the energy of a cluster, not the same in all frames, or stated after
            another value.
    """
    units: dict[str, StatedUnit | None] = dict.fromkeys(targets)
    if not units or not file.exists():  # its reader reports it
        return units
    if file_format(file) == "store":
        return {target: _unit_in_store(file, target) for target in targets}
    unstated: dict[str, str] = {}
    for number, info, _ in _infos(file):
        where = f"{file}, frame {number}"
        for target, found in units.items():
            statements = _statements(where, info, target)
            for text, name in statements.items():
                unit = _unit(where, text, name)
                found = found or unit
                if not math.isclose(unit.energy, found.energy):
                    other = "" if found.where == where else f" ({found.where})"
                    raise InputError(f"{where}: states both {found.text!r}{other} and {text!r}; correct one of them")
            units[target] = found
            if target in info and not statements:
                unstated.setdefault(target, where)
    for target, where in unstated.items():
        found = units[target]
        if found is not None and found.energy != 1:
            raise InputError(f"{found.where}: states {found.text}, but {where} states no unit; write it in all frames")
    return units


def _unit_in_store(file: Path, target: str) -> StatedUnit | None:
    own = target if is_per_atom(target) else unit_in_name(target)
    if own is not None:  # the unit of the store is that of the other energies
        return _unit(str(file), target, own)
    with open_store(file) as store:
        name = unit_of_label(store, target)
    return None if name == "eV" else _unit(str(file), f"energy_unit={name}", name)


def _infos(file: Path, length: float = 1.0) -> Iterator[tuple[int, Mapping[str, object], float]]:
    """Index, values, and unit of length in Å from which it will be converted, of each frame that may state new units.

    Frames that differ only in numbers are alike; ``length`` is the unit in Å that the user states.
    """
    kind = file_format(file)
    known: set[object] = set()
    if kind in WITH_INFO:
        for block in read_blocks(file, with_atoms=True, on_bad="skip", report=False, fragments="keep", length=length):
            for number, atoms in zip(block.number.tolist(), block.atoms or (), strict=True):
                values = {**atoms.info, **(atoms.calc.results if atoms.calc is not None else {})}
                words = tuple(
                    (key, value if isinstance(value, str | bool) else type(value)) for key, value in values.items()
                )
                if words not in known:
                    known.add(words)
                    yield number, values, 1.0
    for number, frame in enumerate(text_frames(file) if kind == "xyz" else ()):
        if isinstance(frame, BadFrame) or (comment := frame.comment.translate(None, DIGITS)) in known:
            continue
        known.add(comment)
        info: dict[str, object] = {}
        stated = None
        with suppress(ValueError, IndexError, KeyError):  # the reader reports what cannot be read
            read = comment_for_ase(frame.comment)
            info, stated = {**key_val_str_to_dict(read.text), **read.info}, read.length
        yield number, info, stated or 1.0


def _statements(where: str, info: Mapping[str, object], target: str) -> dict[str, str]:
    """Unit of the energies of a frame, by the text of each statement."""
    units: dict[str, str] = {}
    of_relaxation = False
    if target.startswith(INITIAL):  # a relaxation renamed the unit with the energy
        initial = {str(key).removeprefix(INITIAL): info[key] for key in info if str(key).startswith(INITIAL)}
        info, target = {**info, **initial}, target.removeprefix(INITIAL)
        stem = target.removesuffix("energy")
        of_relaxation = {f"{stem}fmax", f"{stem}steps", "converged"} <= initial.keys()
    if of_relaxation or target.startswith(ENERGY_PREDICTION):  # in eV, beside energies of the input in any unit
        return units
    before = after_another = ""
    own = re.compile(rf"{re.escape(target)}_?units?", re.IGNORECASE)
    keys = own if any(own.fullmatch(str(key)) for key in info) else EARLIER_UNIT_KEYS
    keys = UNIT_KEYS if keys is not own and target in ENERGY_LABELS else keys
    for key, value in info.items():
        if keys.fullmatch(str(key)):
            text = str(value).strip()
            name = next((word for word in (text, *re.split(r"[\s,;]+", text)) if _is_energy(word)), None)
            if name or keys is own or "energy" in str(key).lower():
                units[f"{key}={text}"] = name or text
        word = str(key).rpartition(":")[2].strip(PUNCTUATION)
        word = f"per {word}" if before == "per" else word
        unsupported = before == target and (UNSUPPORTED.fullmatch(word) or word in ("K", "J"))
        if value is True and (unsupported or _is_energy(word)):
            if before != target and isinstance(info.get(before), float):
                after_another = f"{word!r} follows {before!r}"
            else:
                units[word] = word
        before = key
    if is_per_atom(target):
        units[target] = target
    elif unit := unit_in_name(target):
        units[target] = unit
    if target in info and after_another and not units:
        raise InputError(f"{where}: {after_another}, so the unit of {target!r} is unclear; write it after {target!r}")
    return units


def replace_energies(info: MutableMapping):
    """Prepare a frame for new energies in eV: the unit that it states remains that of its other values only.

    Example:
        >>> info = {"energy": -1.0, "energy_unit": "Hartree", "E_dft": -1.1}
        >>> replace_energies(info)
        >>> info
        {'E_dft': -1.1, 'earlier_energy_unit': 'Hartree'}
    """
    for key, value in list(info.items()):
        word = str(key).strip(PUNCTUATION)
        if UNIT_KEYS.fullmatch(str(key)) or FORCE_UNIT.fullmatch(f"{key}=x"):
            info[f"{EARLIER}{key}"] = info.pop(key)
        elif value is True and _is_energy(word):
            info[f"{EARLIER}energy_unit"] = word
            info.pop(key)
        elif str(key).removesuffix("s").removesuffix("_unit") in ENERGY_LABELS:
            info.pop(key)


def _is_energy(name: str) -> bool:
    """Whether a text is a unit of energies, or of energies per atom."""
    return known_unit(name) is not None or is_per_atom(name)


def _unit(where: str, text: str, name: str) -> StatedUnit:
    if is_per_atom(name):
        raise InputError(f"{where}: {text!r} is an energy per atom; give the total energy of the cluster instead")
    known = known_unit(name)
    if known is None:
        raise InputError(f"{where}: states an unknown unit of energies, {text!r}; use one of {', '.join(ENERGY_UNITS)}")
    return StatedUnit(where, text, known, ENERGY_UNITS[known])


def check_stated_unit(file: Path, target: str, energy: float):
    """Check that the assumed unit of energies in eV agrees with the one that a file states, if any."""
    stated = stated_unit(file, target)
    if stated is not None and not math.isclose(stated.energy, energy, rel_tol=1e-6):
        raise InputError(
            f"{stated.where}: states {stated.text}, but the energies are read in units of {energy:.6g} eV; "
            f"pass energy_unit={stated.name!r} (--energy-unit {stated.name})"
        )


def check_is_in_ev(info: Mapping[str, object], target: str):
    """Check that the ``info`` of a structure states no other unit of an energy than eV."""
    for text, name in _statements("the structure", info, target).items():
        if _unit("the structure", text, name).energy != 1:
            raise InputError(
                f"the structure states {text}; convert {target!r} and the forces to eV and eV/Å, and remove it"
            )


def check_forces_in_ev(info: Mapping[str, object]):
    """Check that the ``info`` of a structure states no other unit of forces than eV/Å."""
    for key, value in info.items():
        if FORCE_UNIT.fullmatch(f"{key}=x"):
            _check_force_unit(f"the structure states {key}={value}", force_unit(str(value)), 1.0)


def check_stated_force_unit(file: Path, name: str, energy: float, length: float = 1.0):
    """Check that values are forces in the assumed units, by their name and by the ``force_unit`` of the frames.

    Args:
        file: The file.
        name: Name of the values.
        energy: Unit of the energies in eV.
        length: Unit of the positions in Å that the user states.

    Raises:
        InputError: If they are in another unit, or a gradient by their name.
    """
    if GRADIENT.search(name):
        raise InputError(f"{file}: {name!r} is a gradient by its name; give the forces, which are minus the gradient")
    named = force_unit_in_name(name)
    if named is not None or unit_in_name(name) is not None:  # a unit that is not known is refused
        _check_force_unit(f"{file}: states {name}", named, energy / length)
    for number, info, converted in _infos(file, length) if file.exists() else ():
        for key, value in info.items():
            if FORCE_UNIT.fullmatch(f"{key}=x"):
                where = f"{file}, frame {number}: states {key}={value}"
                _check_force_unit(where, force_unit(str(value)), energy / length, converted)


def _check_force_unit(stated: str, found: ForceUnit | None, unit: float, converted: float = 1.0):
    """Check a stated unit of forces, which the reader converts if their length is ``converted`` in Å."""
    length = converted if found is not None and math.isclose(found.length, converted) else 1.0
    if found is None or not math.isclose(found.value * length, unit, rel_tol=1e-3):
        raise InputError(
            f"{stated}, but the forces are read in units of {unit / length:.6g} eV/Å; convert them to the unit of the "
            "energies per Å"
        )


def units_of_labels(files: Iterable[str | Path], target: str, name: str | None = None) -> dict[str, float]:
    """Unit of the energies in each file, in eV: the named one, otherwise the one that the file states, otherwise eV.

    Raises:
        InputError: If the named unit is unknown, or a file states another one.
    """
    unit = None if name is None else unit_of(name, ENERGY_UNITS, "--energy-unit")
    units = {}
    for file in expand_paths(files):
        if unit is None:
            stated = stated_unit(file, target)
            units[str(file)] = 1.0 if stated is None else stated.energy
        else:
            check_stated_unit(file, target, unit)
            units[str(file)] = unit
    return units
