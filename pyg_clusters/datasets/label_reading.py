"""Reading of frames with their labels, and frames that are left out."""

import math
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from ase.data import chemical_symbols

from pyg_clusters.datasets.label_table import LabelTable
from pyg_clusters.errors import InputError
from pyg_clusters.frames import BadFrame, FrameBlock, check_block, read_blocks
from pyg_clusters.frames.block import UnlabelledFrame
from pyg_clusters.frames.checks import atom_numbers, numbers
from pyg_clusters.frames.paths import expand_paths, file_format
from pyg_clusters.options import Fragments
from pyg_clusters.units import ENERGY_UNITS, unit_of

SAME_ENERGY: float = 1e-5
"""Largest difference in eV between energies of isolated atoms of an element."""

UNIT_KEYS: re.Pattern[str] = re.compile(r"(energy|label|target)?_?units?(_?(of_)?energy)?", re.IGNORECASE)
"""Matches names under which files state the unit of their energies."""

NUM_LISTED: int = 5
"""Maximum number of skipped frames in a warning."""


@dataclass(frozen=True)
class Labels:
    """Requested labels of each frame.

    Attributes:
        target: Name of the target.
        per_atom: Whether the target is per atom.
        group: Name of the value that identifies the group of a frame; ``None`` for the file it was first read from.
        keep: Names of further values per frame.
        atom_arrays: Names of further values per atom.
        fragments: Treatment of a periodic frame that stays in several pieces.
        energy: Unit of the target in eV, if it is an energy.
        length: Unit of the positions in Å.
    """

    target: str
    per_atom: bool = False
    group: str | None = None
    keep: tuple[str, ...] = ()
    atom_arrays: tuple[str, ...] = ()
    fragments: Fragments = "refuse"
    energy: float = 1.0
    length: float = 1.0


@dataclass
class LabelReader:
    """Reader of frames with all their labels, which notes the frames without labels and those that cannot be used.

    Attributes:
        on_missing: Treatment of a frame without a label, or with a target that is not finite.
        on_bad: Treatment of a frame that cannot be used.
        take_atoms: Whether frames of one atom are isolated atoms, whose targets serve as references.
        table: Targets by file and frame, if they are not in the files.
        skipped: Frames that were left out.
        atoms: Target of an isolated atom by element symbol, and the frame that it is from.
        state: Common charge of the frames, and whether one of them states a spin other than the lowest.
    """

    on_missing: Literal["stop", "skip"] = "stop"
    on_bad: Literal["stop", "skip"] = "stop"
    take_atoms: bool = False
    table: LabelTable | None = None
    skipped: list[BadFrame] = field(default_factory=list)
    atoms: dict[str, tuple[float, str]] = field(default_factory=dict)
    state: tuple[int, bool] | None = None

    def blocks(self, file: Path, labels: Labels) -> Iterator[FrameBlock]:
        """Blocks of the usable frames of a file, with all their labels."""
        if self.table is None and not labels.per_atom:
            check_stated_unit(file, labels.energy)
        isolated = set(self._isolated_atoms(file, labels)) if self.take_atoms else set()
        for block in self._read(file, labels, labels.group, labels.keep, labels.atom_arrays):
            block, bad = self._with_target(block, labels)
            single = block.sizes == 1
            bad += [
                BadFrame(
                    block.file,
                    int(number),
                    "number of atoms is 1, an isolated atom: references='isolated_atoms' uses its energy",
                )
                for number in block.number[single]
            ]
            if single.any():
                block = block.select(~single)
            block, unusable = check_block(block, on_bad="skip")
            block, other_charge = self._of_one_charge(block)
            bad += other_charge
            found = (frame for frame in {*bad, *unusable} if frame.number not in isolated)
            self.note(sorted(found, key=lambda frame: frame.number))
            if len(block):
                yield block

    def _of_one_charge(self, block: FrameBlock) -> tuple[FrameBlock, list[BadFrame]]:
        """Frames with the charge of the first frame of all, and the others as bad."""
        bad: list[BadFrame] = []
        states = np.full(len(block), None) if block.states is None else block.states
        for number, state in zip(block.number.tolist(), states, strict=True):
            if isinstance(state, str):
                bad.append(BadFrame(block.file, number, state))
                continue
            charge = 0 if state is None else state.charge
            known, any_spin = self.state or (charge, False)
            if charge != known:
                reason = f"its charge is {charge}, but {known} in the frames before: train on a single charge"
                bad.append(BadFrame(block.file, number, reason))
            self.state = known, any_spin or (state is not None and not state.is_lowest_spin)
        return (block.select(~np.isin(block.number, [frame.number for frame in bad])) if bad else block), bad

    def check(self, files: Sequence[Path], num_blocks: int):
        """Check that frames are left, and that all rows of the table were used, after all files have been read."""
        if self.table is not None:
            self.table.check_used()
        if not num_blocks:
            reason = f"the first: {self.skipped[0]}" if self.skipped else "there are only isolated atoms"
            raise InputError(f"{files[0]}{' ...' if len(files) > 1 else ''}: no frame can be used; {reason}")

    def _read(
        self,
        file: Path,
        labels: Labels,
        group: str | None = None,
        keep: tuple[str, ...] = (),
        atom_arrays: tuple[str, ...] = (),
    ) -> Iterator[FrameBlock]:
        properties, atom_properties = [*keep, *([group] if group else [])], list(atom_arrays)
        if self.table is None:
            (atom_properties if labels.per_atom else properties).append(labels.target)
        return read_blocks(
            file,
            properties=properties,
            atom_properties=atom_properties,
            fragments=labels.fragments,
            length=labels.length,
            on_bad="skip",
            on_missing="skip",
            report=False,
        )

    def _with_target(self, block: FrameBlock, labels: Labels) -> tuple[FrameBlock, list[BadFrame]]:
        """Frames with a finite target, and the others as bad."""
        bad: list[BadFrame] = list(block.unreadable)
        if not self.table and not labels.per_atom and labels.energy != 1 and len(block):
            block.properties[labels.target] = numbers(block, labels.target, finite=False) * labels.energy
        if self.table is not None:
            block.properties[labels.target], missing = self.table.energies(block)
            bad += missing
        block.unreadable = []
        if not len(block):
            return block, bad
        values = (atom_numbers if labels.per_atom else numbers)(block, labels.target, finite=False)
        wrong = ~np.isfinite(values)
        if labels.per_atom:
            wrong = np.logical_or.reduceat(wrong, block.ptr[:-1])
        named = {frame.number for frame in bad}
        for frame in np.flatnonzero(wrong):
            number, value = int(block.number[frame]), values[frame]
            if labels.per_atom:
                of_frame = values[block.ptr[frame] : block.ptr[frame + 1]]
                value = of_frame[~np.isfinite(of_frame)][0]
            if number not in named:
                bad.append(UnlabelledFrame(block.file, number, f"{labels.target!r} is {value}"))
        return (block.select(~wrong) if wrong.any() else block), bad

    def note(self, bad: Iterable[BadFrame]):
        """Raise an error for the first frame that is not to be skipped, and note the others."""
        for frame in bad:
            if isinstance(frame, UnlabelledFrame) and self.on_missing == "stop":
                raise InputError(f"{frame}{_hint(frame)}; or pass on_missing='skip' to leave such frames out")
            if not isinstance(frame, UnlabelledFrame) and self.on_bad == "stop":
                raise InputError(f"{frame}; fix or remove the frame, or pass on_bad='skip' to leave such frames out")
            self.skipped.append(frame)

    def _isolated_atoms(self, file: Path, labels: Labels) -> Iterator[int]:
        """Collect the targets of frames of one atom, which need no other labels, and yield the indices of these."""
        for block in self._read(file, labels):
            block, _ = self._with_target(block, labels)
            for frame in np.flatnonzero(block.sizes == 1):
                symbol = chemical_symbols[block.z[block.ptr[frame]]]
                energy = float(numbers(block, labels.target)[frame])
                where = f"{block.file}, frame {block.number[frame]}"
                known, first = self.atoms.setdefault(symbol, (energy, where))
                if abs(known - energy) > SAME_ENERGY:
                    raise InputError(
                        f"{where}: the energy of an isolated {symbol} is {energy}, but {known} in {first}; remove one"
                    )
                yield int(block.number[frame])


class StatedUnit(NamedTuple):
    """Unit of energies stated by a frame.

    Attributes:
        where: File and frame.
        text: Key and value.
        name: Name of the unit.
        energy: Value of the unit in eV.
    """

    where: str
    text: str
    name: str
    energy: float


def stated_unit(file: Path) -> StatedUnit | None:
    """Unit of energies stated by the first frame of XYZ text, if any."""
    if file_format(file) != "xyz":
        return None
    block = next(read_blocks(file, with_atoms=True, block_size=1, on_bad="skip", report=False), None)
    if block is None or not block.atoms:
        return None
    known = {name.lower(): value for name, value in ENERGY_UNITS.items()}
    for key, value in block.atoms[0].info.items():
        name = str(value).strip()
        if UNIT_KEYS.fullmatch(key) and name.lower() in known:
            return StatedUnit(f"{file}, frame {block.number[0]}", f"{key}={name}", name, known[name.lower()])
    return None


def check_stated_unit(file: Path, energy: float):
    """Check that the assumed unit of energies agrees with the one stated by the first frame of XYZ text, if any.

    Args:
        file: File of frames.
        energy: Assumed unit in eV.
    """
    stated = stated_unit(file)
    if stated is not None and not math.isclose(stated.energy, energy, rel_tol=1e-6):
        raise InputError(
            f"{stated.where}: its comment states {stated.text}, but the energies are read in units of {energy:.6g} eV; "
            f"pass energy_unit={stated.name!r} (--energy-unit {stated.name})"
        )


def units_of_labels(files: Iterable[str | Path], name: str | None) -> dict[str, float]:
    """Unit in eV of the energies in each file.

    Args:
        files: Files, folders and patterns.
        name: Name of the unit as for ``--energy-unit``; by default the unit stated by a file, or else eV.

    Raises:
        InputError: If there is no such unit, or a file states another one.
    """
    unit = None if name is None else unit_of(name, ENERGY_UNITS, "--energy-unit")
    units = {}
    for file in expand_paths(files):
        if unit is not None:
            check_stated_unit(file, unit)
        stated = stated_unit(file) if unit is None else None
        units[str(file)] = unit if unit is not None else 1.0 if stated is None else stated.energy
    return units


def _hint(frame: UnlabelledFrame) -> str:
    """Suggestion for a missing name."""
    word = next((word for word in ("force", "energ") if word in frame.key.lower()), None)
    alike = [name for name in frame.found if word is not None and word in name.lower()]
    if not alike and word == "energ" and "comment" in frame.found:
        alike = ["comment"]
    if not alike:
        return ""
    argument = "forces" if word == "force" else "target"
    return f"; {argument}={alike[0]!r} selects that one" if len(alike) == 1 else ""


def report_skipped(skipped: Sequence[BadFrame]):
    """Warn about frames that were left out."""
    if not skipped:
        return
    some = "; ".join(str(bad).partition("; found per frame")[0] for bad in skipped[:NUM_LISTED])
    more = "; ..." if len(skipped) > NUM_LISTED else ""
    warnings.warn(f"{len(skipped)} frames are left out (listed in skipped): {some}{more}", stacklevel=3)
