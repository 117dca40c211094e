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
from pyg_clusters.frames.xyz_comment import FORCE_UNIT, comment_for_ase, length_in_unit
from pyg_clusters.frames.xyz_reader import text_frames
from pyg_clusters.units import ENERGY_UNITS, unit_of

UNIT_KEYS: re.Pattern[str] = re.compile(r"(energy|label|target)?_?units?(_?(of_)?energy)?", re.IGNORECASE)
"""Matches names under which frames state the unit of their energies."""

EARLIER_UNIT_KEYS: re.Pattern[str] = re.compile(f"({EARLIER})?{UNIT_KEYS.pattern}", re.IGNORECASE)
"""Matches such names also in frames that have got a new energy, see :func:`replace_energies`."""

BEFORE_UNIT: re.Pattern[str] = re.compile(r"[_ .(\[/-]|(?<=[a-z])(?=[A-Z])")
"""Matches what may precede the unit at the end of a name, such as ``energy_Ha``, ``E(kcal/mol)`` or ``energyHa``."""

PER_ATOM: re.Pattern[str] = re.compile(
    "|".join(
        (
            r"(?:.*[a-z)\]])?[_ -]?(?:per|/)[_ -]?(?:atom|at|site|ion|n|n_?atom)s?\.?[)\]]?",  # energy_per_atom, E/N
            r"per_?atom_.*",
            r"(?:.*[_ (\[-])?(?:m?ev|ha|hartree|ry|kcal_mol|kj_mol)[_ ]?(?:atom|at)[)\]]?",  # energy_eV_atom
            r"(?:.*[_ ])?e(?:nergy|tot)?_?pa",
        )
    ),
    re.IGNORECASE,
)
"""Matches names and units of energies per atom, see :func:`is_per_atom`."""

SPELLINGS: Mapping[str, str] = {
    **{name.lower(): name for name in ENERGY_UNITS},
    **dict.fromkeys(("eh", "au", "a.u.", "hartrees", "atomic", "atomic_unit", "atomic_units"), "Hartree"),
    **dict.fromkeys(("kcal", "kcal_mol", "kcal-mol", "kcalmol", "kcal/mole", "kcal_per_mol"), "kcal/mol"),
    **dict.fromkeys(("kj", "kj_mol", "kj-mol", "kjmol", "kj/mole", "kj_per_mol"), "kJ/mol"),
    **dict.fromkeys(("electronvolt", "electronvolts"), "eV"),
    **dict.fromkeys(("ryd", "rydbergs"), "Rydberg"),
}
"""Names of units by their spellings in files, in lower case."""

ENERGY_LABELS: tuple[str, ...] = ("energy", "binding_energy")
"""Names of the energies that this package calculates, in eV."""

PER_MOL: re.Pattern[str] = re.compile(r"[\s.*·]*mol(?:\^?\(?-1\)?|⁻¹)|[\s_]*per[\s_]*mole?", re.IGNORECASE)
"""Matches ``mol-1``, ``per mol`` and the like, with the blank before it."""

PUNCTUATION: str = " ,;:()[]{}"
"""Characters around a unit that do not belong to it."""

DIGITS: bytes = b"0123456789.+-"
"""Characters of numbers."""

WITH_INFO: frozenset[str] = frozenset({"traj", "db", "json"})
"""Formats other than XYZ whose frames may state a unit."""


class StatedUnit(NamedTuple):
    """Unit of energies stated by a file.

    Attributes:
        where: File and frame.
        text: The statement.
        name: Name of the unit.
        energy: Value of the unit in eV.
    """

    where: str
    text: str
    name: str
    energy: float


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
    for number, info in _infos(file):
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


def _infos(file: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Index and values of each frame that may state another unit than those before."""
    kind = file_format(file)
    if kind == "xyz":
        yield from ((number, info) for number, info, _ in _comments(file))
    if kind not in WITH_INFO:
        return
    for block in read_blocks(file, with_atoms=True, on_bad="skip", report=False, fragments="keep"):
        for number, atoms in zip(block.number.tolist(), block.atoms or (), strict=True):
            yield number, {**atoms.info, **(atoms.calc.results if atoms.calc is not None else {})}


def _comments(file: Path) -> Iterator[tuple[int, Mapping[str, object], float]]:
    """Index, values and unit of length in Å of each frame of XYZ text whose comment differs from those before.

    Comments that differ only in numbers are alike.
    """
    known = set()
    for number, frame in enumerate(text_frames(file)):
        if isinstance(frame, BadFrame) or (words := frame.comment.translate(None, DIGITS)) in known:
            continue
        known.add(words)
        info: dict[str, object] = {}
        length = 1.0
        with suppress(ValueError, IndexError, KeyError):  # the reader reports what cannot be read
            comment = comment_for_ase(frame.comment)
            info, length = {**key_val_str_to_dict(comment.text), **comment.info}, comment.length or 1.0
        yield number, info, length


def _statements(where: str, info: Mapping[str, object], target: str) -> dict[str, str]:
    """Unit of the energies of a frame, by the text of each statement."""
    units: dict[str, str] = {}
    if target.startswith(INITIAL):  # a relaxation renamed the unit with the energy
        initial = {str(key): value for key, value in info.items() if str(key).startswith(INITIAL)}
        info = {**info, **{key.removeprefix(INITIAL): value for key, value in initial.items()}}
        target = target.removeprefix(INITIAL)
    if target.startswith(ENERGY_PREDICTION):  # in eV, beside energies of the input in any unit
        return units
    before = after_another = ""
    own = re.compile(rf"{re.escape(target)}_?units?", re.IGNORECASE)
    keys = own if any(own.fullmatch(str(key)) for key in info) else EARLIER_UNIT_KEYS
    keys = UNIT_KEYS if keys is not own and target in ENERGY_LABELS else keys
    for key, value in info.items():
        text = str(value).strip()
        if keys.fullmatch(str(key)):
            name = next((word for word in (text, *re.split(r"[\s,;]+", text)) if _is_energy(word)), None)
            if name or keys is own or "energy" in str(key).lower():
                units[f"{key}={text}"] = name or text
        word = str(key).rpartition(":")[2].strip(PUNCTUATION)
        word = f"per {word}" if before == "per" else word
        if value is True and _is_energy(word):
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


def unit_in_name(name: str) -> str | None:
    """Unit at the end of the name of an energy, if any.

    Example:
        >>> [unit_in_name(name) for name in ("total_energy_Ha", "e_au", "E_Au", "energy")]
        ['Ha', 'Hartree', None, None]
    """
    return _name_and_unit(name)[1]


def is_per_atom(name: str) -> bool:
    """Whether a name of an energy, or a unit, is per atom.

    Example:
        >>> [is_per_atom(name) for name in ("E/N", "eV/atom", "energy_per_atom_eV", "energy_eV")]
        [True, True, True, False]
    """
    return any(PER_ATOM.fullmatch(text) is not None for text in (name, _name_and_unit(name)[0]))


def _name_and_unit(name: str) -> tuple[str, str | None]:
    """Name of an energy without the unit at its end, and this unit."""
    name = PER_MOL.sub("/mol", name)
    for match in BEFORE_UNIT.finditer(name):
        end = name[match.end() :].strip(PUNCTUATION)
        if end != "Au" and end.lower() != "atomic" and (unit := known_unit(end)):  # E_Au is that of gold
            return name[: match.start()], unit
    return name, None


def known_unit(name: str) -> str | None:
    """Name in :data:`~pyg_clusters.units.ENERGY_UNITS` of a unit in any spelling; ``None`` if it is unknown.

    Example:
        >>> known_unit("kcal mol^-1"), known_unit("(a.u.)"), known_unit("Å")
        ('kcal/mol', 'Hartree', None)
    """
    name = PER_MOL.sub("/mol", name.strip(PUNCTUATION).lower())
    return SPELLINGS.get(name) or SPELLINGS.get(name.rstrip("."))


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


def check_stated_force_unit(file: Path, unit: float):
    """Check that the assumed unit of forces in eV/Å agrees with the ``force_unit`` that XYZ text states, if any."""
    for number, info, length in _comments(file) if file.exists() and file_format(file) == "xyz" else ():
        for key, value in info.items():
            if not FORCE_UNIT.fullmatch(f"{key}=x"):
                continue
            energy, of_length = str(value).rpartition("/")[0] or str(value), length_in_unit(str(value))
            length = 1.0 if of_length == 1 else length  # the reader converts the length unless it is Å
            stated = ENERGY_UNITS.get(known_unit(energy) or "", math.nan) / of_length
            if not math.isclose(stated * length, unit, rel_tol=1e-3):
                raise InputError(
                    f"{file}, frame {number}: states {key}={value}, but the forces are read in units of "
                    f"{unit / length:.6g} eV/Å; convert them to the unit of the energies per Å"
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
