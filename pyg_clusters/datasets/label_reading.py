"""Reading of frames with labels, and check of their forces by the energies."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from ase.data import chemical_symbols

from pyg_clusters.datasets.label_table import LabelTable
from pyg_clusters.errors import InputError
from pyg_clusters.frames import BadFrame, FrameBlock, check_block, read_blocks
from pyg_clusters.frames.block import UnlabelledFrame, atoms_of
from pyg_clusters.frames.checks import InvalidLabel, finite_frames, numbers
from pyg_clusters.frames.electronic_state import ElectronicState
from pyg_clusters.frames.energy_units import check_stated_force_unit, check_stated_unit
from pyg_clusters.options import Fragments
from pyg_clusters.positions import centred
from pyg_clusters.terminal import count_of
from pyg_clusters.units import sign_problem

SAME_ENERGY: float = 1e-5
"""Maximum difference in eV between several energies of an isolated atom of an element."""


@dataclass(frozen=True)
class Labels:
    """Names in the files and units of requested labels, see :class:`~pyg_clusters.datasets.ClusterDataset`."""

    target: str
    per_atom: bool = False
    group: str | None = None
    keep: tuple[str, ...] = ()
    atom_arrays: tuple[str, ...] = ()
    fragments: Fragments = "refuse"
    energy: float = 1.0
    length: float = 1.0
    forces: str | None = None


@dataclass
class LabelReader:
    """Reader of labelled frames, which records frames without labels and unusable frames."""

    #: ``"stop"`` or ``"skip"`` at a frame without a label, or with a target that is not finite.
    on_missing: Literal["stop", "skip"] = "stop"
    on_bad: Literal["stop", "skip"] = "stop"  #: ``"stop"`` or ``"skip"`` at a frame that cannot be used.
    take_atoms: bool = False  #: Whether the targets of one-atom frames are used as reference energies.
    table: LabelTable | None = None  #: Targets by file and frame, if they are not in the files.
    skipped: list[BadFrame] = field(default_factory=list)  #: Skipped frames.
    #: Target of the isolated atom by element symbol, and the frame from which it was read.
    atoms: dict[str, tuple[float, str]] = field(default_factory=dict)
    lowest: dict[str, float] = field(default_factory=dict)  #: Lowest target by its name, if it is per cluster.
    #: Common charge of the frames in e, and whether one of them states a spin other than the lowest.
    state: tuple[int, bool] | None = None

    def blocks(self, file: Path, labels: Labels) -> Iterator[FrameBlock]:
        """Yield blocks of the usable frames of a file, with all their labels."""
        if self.table is None and not labels.per_atom:
            check_stated_unit(file, labels.target, labels.energy)
        if labels.forces:
            check_stated_force_unit(file, labels.forces, labels.energy, labels.length)
        isolated = set(self._isolated_atoms(file, labels)) if self.take_atoms else set()
        check = ForceCheck()
        for block in self._read(file, labels):
            block, bad = self._with_target(block, labels)
            single = block.sizes == 1
            for frame in np.flatnonzero(single):
                kind = "an isolated atom: references='isolated_atoms' uses its energy"
                if _is_ion(block, frame):
                    kind = "an isolated ion, which is no reference"
                bad.append(BadFrame(block.file, int(block.number[frame]), f"number of atoms is 1, {kind}"))
            if single.any():
                block = block.select(~single)
            block, unusable = check_block(block, on_bad="skip")
            block, other_charge = self._of_one_charge(block)
            block, without_value = self._with_values(block, labels)
            bad += other_charge + without_value
            found = (frame for frame in {*bad, *unusable} if frame.number not in isolated)
            self.note(sorted(found, key=lambda frame: frame.number))
            if not len(block):
                continue
            if labels.forces and block.atom_properties[labels.forces].shape != block.pos.shape:
                raise InputError(
                    f"{file}: {labels.forces!r} is not three numbers per atom; give the name of the forces"
                )
            if labels.forces and not labels.per_atom:
                forces = block.atom_properties[labels.forces] * (labels.energy / labels.length)
                check.add(block, forces, block.properties[labels.target])
            if not labels.per_atom:
                name = labels.target if self.table is None else self.table.column
                self.lowest[name] = min(self.lowest.get(name, np.inf), block.properties[labels.target].min())
            yield block
        check.finish()

    def _of_one_charge(self, block: FrameBlock) -> tuple[FrameBlock, list[BadFrame]]:
        """Separate the frames with the same charge as the first frame from the others, which are bad."""
        bad: list[BadFrame] = []
        for number, state in zip(block.number.tolist(), block.stated, strict=True):
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
        """After reading all files, check that there are usable frames, and check the table and the sign of energies."""
        if self.table is not None:
            self.table.check_used()
        named = f"{files[0]}{' ...' if len(files) > 1 else ''}"
        if not num_blocks:
            reason = f"the first: {self.skipped[0]}" if self.skipped else "there are only isolated atoms"
            raise InputError(f"{named}: no frame can be used; {reason}")
        for problem in filter(None, map(sign_problem, self.lowest, self.lowest.values())):
            warnings.warn(f"{named}: {problem}", stacklevel=2)

    def _read(self, file: Path, labels: Labels) -> Iterator[FrameBlock]:
        properties = [*labels.keep, *([labels.group] if labels.group else [])]
        atom_properties = list(labels.atom_arrays)
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
        """Separate the frames with a finite target from the others, which are bad."""
        bad: list[BadFrame] = list(block.unreadable)
        if self.table is not None:
            block.properties[labels.target], missing = self.table.energies(block)
            bad += missing
        block.unreadable = []
        named = {frame.number for frame in bad}
        block, found = finite_frames(block, labels.target, labels.per_atom, single=True)
        if len(block) and not labels.per_atom:
            energy = labels.energy if self.table is None else 1.0
            block.properties[labels.target] = numbers(block, labels.target) * energy
        return block, bad + [frame for frame in found if frame.number not in named]

    def _with_values(self, block: FrameBlock, labels: Labels) -> tuple[FrameBlock, list[BadFrame]]:
        """Separate the frames whose further values are finite from the others, which are bad."""
        bad: list[BadFrame] = []
        for key, per_atom in [*((key, False) for key in labels.keep), *((key, True) for key in labels.atom_arrays)]:
            block, found = finite_frames(block, key, per_atom)
            bad += found
        return block, bad

    def note(self, bad: Iterable[BadFrame]):
        """Record frames that are skipped, and raise an error for the first one that must not be skipped."""
        for frame in bad:
            invalid = isinstance(frame, InvalidLabel) and self.on_bad == "skip"
            if isinstance(frame, UnlabelledFrame) and self.on_missing == "stop" and not invalid:
                raise InputError(f"{frame}{_hint(frame)}; or leave such frames out: {_skip('on_missing')}")
            if not isinstance(frame, UnlabelledFrame) and self.on_bad == "stop":
                raise InputError(f"{frame}; fix or remove the frame, or leave such frames out: {_skip('on_bad')}")
            self.skipped.append(frame)

    def _isolated_atoms(self, file: Path, labels: Labels) -> Iterator[int]:
        """Collect the targets of one-atom frames, which need no other labels, and yield the indices of these frames."""
        for block in self._read(file, replace(labels, group=None, keep=(), atom_arrays=())):
            block, _ = self._with_target(block, labels)
            for frame in np.flatnonzero(block.sizes == 1):
                if _is_ion(block, frame):
                    continue
                symbol = chemical_symbols[block.z[block.ptr[frame]]]
                energy = float(numbers(block, labels.target)[frame])
                where = f"{block.file}, frame {block.number[frame]}"
                known, first = self.atoms.setdefault(symbol, (energy, where))
                if abs(known - energy) > SAME_ENERGY:
                    raise InputError(
                        f"{where}: the energy of an isolated {symbol} is {energy}, but {known} in {first}; remove one"
                    )
                yield int(block.number[frame])


def _is_ion(block: FrameBlock, frame: np.integer) -> bool:
    state = block.stated[frame]
    return isinstance(state, ElectronicState) and state.charge != 0


def _hint(frame: UnlabelledFrame) -> str:
    """Suggest an argument for a missing label."""
    word = next((word for word in ("force", "energ") if word in frame.key.lower()), None)
    alike = [name for name in frame.found if word is not None and word in name.lower()]
    if not alike and word == "energ" and "comment" in frame.found:
        alike = ["comment"]
    if not alike:
        return ""
    argument = "forces" if word == "force" else "target"
    return f"; {argument}={alike[0]!r} selects that one" if len(alike) == 1 else ""


def _skip(argument: str) -> str:
    return f"{argument}='skip' (--data.dataset.{argument} skip)"


def report_skipped(skipped: Sequence[BadFrame]):
    """Warn about skipped frames."""
    if not skipped:
        return
    are, first = ("is", ":") if len(skipped) == 1 else ("are", ", the first:")
    reason = str(skipped[0]).partition("; found per frame")[0]
    warnings.warn(
        f"{count_of(len(skipped), 'frame')} {are} left out of the data set (listed in dataset.skipped){first} {reason}",
        stacklevel=3,
    )


SMALL_STEP: float = 0.3
"""Largest displacement of an atom in Å between neighbouring frames over which forces are integrated."""

FEWEST_STEPS: int = 10
"""Smallest number of such steps for a check of forces."""

RELATED: float = 0.9
"""Smallest absolute correlation of work and change of the energy at which their ratio is known."""

SAME_UNIT: float = 1.5
"""Largest factor between forces of one unit; one in Bohr instead of Å is 1.89."""


class ForceCheck:
    r"""Check that the forces of a file are minus the gradient of its energies, in sign and unit.

    Between neighbouring frames of a trajectory the energy changes by about
    :math:`-\tfrac{1}{2} \sum_i (\mathbf{F}_i + \mathbf{F}'_i) \cdot \Delta\mathbf{r}_i`. The frames of each file from
    which they were first read are checked together. Files whose neighbouring frames are further apart than
    :data:`SMALL_STEP` are not checked.
    """

    def __init__(self) -> None:
        self._steps: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}

    def add(self, block: FrameBlock, forces: np.ndarray, energies: np.ndarray):
        """Add a block of frames.

        Args:
            block: The frames.
            forces: Their forces in eV/Å, ``[num_atoms, 3]``.
            energies: Their energies in eV, ``[num_frames]``.
        """
        sources = block.origins[0]
        for source in dict.fromkeys(sources.tolist()):
            frames = np.flatnonzero(sources == source)
            atoms, _ = atoms_of(block.ptr, frames)
            step = _small_steps(block.select(frames), forces[atoms], energies[frames])
            if step[0].size:
                name = block.file if source == block.file else f"{block.file}, from {source}"
                self._steps.setdefault(name, []).append(step)

    def finish(self):
        """Check the frames added so far.

        Raises:
            InputError: If the energies change with the work of the forces, but not by about as much.
        """
        for name, steps in self._steps.items():
            work, change = (np.concatenate(parts) for parts in zip(*steps, strict=True))
            _check_work(name, work, change)


def _check_work(name: str, work: np.ndarray, change: np.ndarray):
    """Compare work of the forces and change of the energy ``[num_steps]`` in eV."""
    size = np.hypot(work, change)
    work, change = (part[size > 0] / size[size > 0] for part in (work, change))  # each step has the same weight
    squares = (work**2).sum() * (change**2).sum()
    if len(work) < FEWEST_STEPS or not squares > 0:
        return
    correlation, ratio = (work * change).sum() / squares**0.5, np.median(change[work != 0] / work[work != 0])
    if abs(correlation) > RELATED and not 1 / SAME_UNIT < ratio < SAME_UNIT:
        raise InputError(
            f"{name}: the forces do not belong to the energies: between its neighbouring frames the energies change by "
            f"{ratio:.3g} times the work of the forces ({len(work)} steps, correlation {correlation:.2f}); check the "
            "sign of the forces, whether the energies are potential energies of whole clusters (not per atom), and the "
            "units (energy_unit, length_unit)"
        )


def _small_steps(block: FrameBlock, forces: np.ndarray, energies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Work of the forces and change of the energy in eV, in each small step from a frame of a block to the next."""
    frames = np.flatnonzero(block.sizes[:-1] == block.sizes[1:])
    if not len(frames):
        return np.empty(0), np.empty(0)
    atoms, part = atoms_of(block.ptr, frames)
    after, _ = atoms_of(block.ptr, frames + 1)
    first = part[:-1]
    pos = centred(block.pos, block.ptr)
    moved = pos[after] - pos[atoms]
    work = np.add.reduceat(-0.5 * ((forces[atoms] + forces[after]) * moved).sum(axis=1), first)
    same = np.logical_and.reduceat(block.z[atoms] == block.z[after], first)
    small = same & (np.maximum.reduceat(np.linalg.norm(moved, axis=1), first) < SMALL_STEP)
    return work[small], (energies[frames + 1] - energies[frames])[small]
