"""Blocks of frames as flat arrays, bad frames, and the options of the readers."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike

from pyg_clusters.errors import InputError
from pyg_clusters.options import Fragments

EXACT: int = 2**53  # double precision represents all integers up to this one exactly

KINDS: dict[str, str] = {"b": "true or false", "i": "a number", "u": "a number", "f": "a number", "U": "a text"}
"""Kind of the values of an array, by the kind of its NumPy type."""


def kind_of(value: object) -> str:
    """Kind of a value: a number, a text, true or false, or something else.

    Example:
        >>> kind_of(np.float64(1.5)), kind_of("1.5"), kind_of(True), kind_of(None)
        ('a number', 'a text', 'true or false', 'something else')
    """
    return KINDS.get(np.asarray(value).dtype.kind, "something else")


def column(values: Sequence) -> np.ndarray:
    """Array ``[num_frames, ...]`` of one value per frame.

    Values of one kind and shape become an array of that type, and others an array of objects, so that NumPy converts
    neither numbers to texts nor booleans to numbers.

    Example:
        >>> column([0, 0.73]).dtype, column([1, "a"]).tolist()
        (dtype('float64'), [1, 'a'])
    """
    if len({(kind_of(value), np.shape(value)) for value in values}) <= 1 and not _rounds(values):
        return np.array(values)
    mixed = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        mixed[index] = value
    return mixed


def concatenated(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Concatenate values per atom, as objects if they are of several kinds (see :func:`column`).

    Raises:
        ValueError: If they have different shapes.

    Example:
        >>> concatenated([np.array([1.5]), np.array(["a"])]).tolist()
        [1.5, 'a']
    """
    filled = [part for part in parts if len(part)] or parts[:1]
    if len({kind_of(part) for part in filled}) > 1 or _rounds(filled):
        filled = [part.astype(object) for part in filled]
    return np.concatenate(filled)


def _rounds(values: Sequence) -> bool:
    """Whether a common double precision with the other values would round an integer."""
    types = {np.asarray(value).dtype.kind for value in values}
    return len(types & set("iuf")) > 1 and any(
        np.max(value, initial=0) > EXACT or np.min(value, initial=0) < -EXACT
        for value in values
        if np.asarray(value).dtype.kind in "iu"
    )


@dataclass(frozen=True)
class BadFrame:
    """A frame that cannot be used."""

    file: str  #: The file, as specified by the user.
    number: int  #: Index of the frame in the file, from 0.
    reason: str  #: What is wrong, with the value.

    def __str__(self) -> str:
        return f"{self.file}, frame {self.number}: {self.reason}"

    @property
    def error(self) -> InputError:
        """Error to raise if bad frames are not skipped."""
        return InputError(f"{self}; fix or remove the frame, or leave such frames out: --on-bad skip (on_bad='skip')")


@dataclass(frozen=True)
class UnlabelledFrame(BadFrame):
    """A frame without a requested value."""

    key: str = ""  #: Name of the value.
    found: tuple[str, ...] = ()  #: Names of the values per frame and per atom that the frame has.


def names_found(per_frame: Sequence[str], per_atom: Sequence[str]) -> str:
    """List the values of a frame, for messages about missing ones."""
    return f"found per frame: {', '.join(per_frame) or 'none'}; per atom: {', '.join(per_atom) or 'none'}"


class LazyAtoms(Sequence[Atoms]):
    """Frames as ASE objects, which are made on access by a function for each."""

    def __init__(self, makers: Iterable[Callable[[], Atoms]]):
        self.makers = list(makers)

    def __len__(self) -> int:
        return len(self.makers)

    @overload
    def __getitem__(self, index: int) -> Atoms: ...
    @overload
    def __getitem__(self, index: slice) -> "LazyAtoms": ...
    def __getitem__(self, index):
        return LazyAtoms(self.makers[index]) if isinstance(index, slice) else self.makers[index]()

    def select(self, indices: Iterable[int]) -> "LazyAtoms":
        """Frames at the given indices, in that order."""
        return LazyAtoms(self.makers[index] for index in indices)


@dataclass
class FrameBlock:
    """Consecutive frames of one file, of any sizes, as flat arrays."""

    file: str  #: The file, as specified by the user.
    number: np.ndarray  #: Index of each frame in the file, ``[num_frames]``.
    z: np.ndarray  #: Atomic numbers ``[num_atoms]``.
    pos: np.ndarray  #: Positions ``[num_atoms, 3]`` in Å, in double precision.
    ptr: np.ndarray  #: Offsets of the frames, ``[num_frames + 1]``.
    #: Lattice vectors of each frame in the file in Å ``[num_frames, 3, 3]``, in rows; zero without a cell.
    cell: np.ndarray
    pbc: np.ndarray  #: Whether each lattice vector is periodic ``[num_frames, 3]``.
    #: Requested values per frame, ``[num_frames]`` each.
    properties: dict[str, np.ndarray] = field(default_factory=dict)
    #: Requested values per atom, ``[num_atoms, ...]`` each.
    atom_properties: dict[str, np.ndarray] = field(default_factory=dict)
    atoms: LazyAtoms | None = None  #: The frames as ASE objects with all contents of the file, if requested.
    unreadable: list[BadFrame] = field(default_factory=list)  #: Frames of this part of the file that could not be read.
    file_number: int = 0  #: Index of the file among the input.
    block_number: int = 0  #: Index of the block in the file.
    partial: bool = False  #: Whether the block ends early because of a bad frame that stops the reading.
    #: Whether atoms of a frame were moved across the faces of its cell ``[num_frames]``; ``None`` while the frames are
    #: as in the file (see :func:`~pyg_clusters.frames.join.as_clusters`).
    joined: np.ndarray | None = None
    fragments: Fragments = "refuse"  #: Whether frames without a cell may be in several pieces.
    #: File and index from which the frames were first read, ``[num_frames]`` each, if that is another file: the source
    #: of a store, or ``source_file`` and ``source_frame`` of the frames.
    origin: tuple[np.ndarray, np.ndarray] | None = None
    #: Charges and spins stated by the frames, ``[num_frames]``, if any frame states one (see
    #: :func:`~pyg_clusters.frames.electronic_state.stated_states`).
    states: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.number)

    @property
    def position(self) -> tuple[int, int]:
        """Index of the file and index of the block in it, by which blocks are ordered."""
        return self.file_number, self.block_number

    @property
    def origins(self) -> tuple[np.ndarray, np.ndarray]:
        """File and index from which each frame was first read, ``[num_frames]`` each."""
        return self.origin or (np.full(len(self), self.file, dtype=object), self.number)

    @property
    def stated(self) -> np.ndarray:
        """Charge and spin that each frame states, ``None`` if it states neither, ``[num_frames]``."""
        return np.full(len(self), None) if self.states is None else self.states

    @property
    def num_joined(self) -> int:
        """Number of frames of which atoms were moved across the faces of the cell."""
        return 0 if self.joined is None else int(self.joined.sum())

    @property
    def periodic(self) -> np.ndarray:
        """Whether each frame has a periodic cell in its file, ``[num_frames]``."""
        return np.asarray((self.pbc & self.cell.any(axis=2)).any(axis=1))

    @property
    def sizes(self) -> np.ndarray:
        """Number of atoms of each frame, ``[num_frames]``."""
        return np.diff(self.ptr)

    @property
    def frame_of_atom(self) -> np.ndarray:
        """Index in the block of the frame of each atom, ``[num_atoms]``."""
        return np.repeat(np.arange(len(self)), self.sizes)

    def select(self, frames: Sequence[int] | np.ndarray) -> "FrameBlock":
        """Block of the given frames, by their indices in the block or a boolean mask, in that order."""
        indices = np.arange(len(self))[np.asarray(frames)]
        atoms, ptr = atoms_of(self.ptr, indices)
        return FrameBlock(
            file=self.file,
            number=self.number[indices],
            z=self.z[atoms],
            pos=self.pos[atoms],
            ptr=ptr,
            cell=self.cell[indices],
            pbc=self.pbc[indices],
            properties={key: values[indices] for key, values in self.properties.items()},
            atom_properties={key: values[atoms] for key, values in self.atom_properties.items()},
            atoms=None if self.atoms is None else self.atoms.select(indices.tolist()),
            file_number=self.file_number,
            block_number=self.block_number,
            joined=None if self.joined is None else self.joined[indices],
            fragments=self.fragments,
            origin=None if self.origin is None else (self.origin[0][indices], self.origin[1][indices]),
            states=None if self.states is None else self.states[indices],
        )


def offsets(sizes: ArrayLike) -> np.ndarray:
    """Offsets of frames of the given numbers of atoms, ``[num_frames + 1]``."""
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def atoms_of(ptr: np.ndarray, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the atoms of the given frames, in that order, and the offsets of the frames among these atoms."""
    sizes = np.diff(ptr)[frames]
    part = offsets(sizes)
    return np.arange(part[-1]) + np.repeat(ptr[frames] - part[:-1], sizes), part


def arrays_of(frames: Sequence[Atoms]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The fields ``z``, ``pos``, ``ptr``, ``cell`` and ``pbc`` of a :class:`FrameBlock` of ASE objects."""
    z = np.concatenate([np.zeros(0, dtype=np.int64), *(atoms.numbers for atoms in frames)])
    pos = np.concatenate([np.zeros((0, 3)), *(atoms.positions for atoms in frames)])
    cell = np.array([atoms.cell.array for atoms in frames], dtype=float).reshape(-1, 3, 3)
    pbc = np.array([atoms.pbc for atoms in frames], dtype=bool).reshape(-1, 3)
    return z, pos, offsets([len(atoms) for atoms in frames]), cell, pbc


def flat_arrays(blocks: Sequence[FrameBlock]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Atomic numbers, positions and offsets of the frames of several blocks, in their order."""
    z, pos = (np.concatenate([getattr(block, name) for block in blocks]) for name in ("z", "pos"))
    return z, pos, offsets(np.concatenate([block.sizes for block in blocks]))


def origins_of(blocks: Sequence[FrameBlock]) -> tuple[np.ndarray, np.ndarray]:
    """Origins of the frames of several blocks, in their order, as :attr:`FrameBlock.origins`."""
    files, numbers = zip(*(block.origins for block in blocks), strict=True)
    return np.concatenate(files), np.concatenate(numbers)


def join_blocks(parts: Sequence[FrameBlock]) -> FrameBlock:
    """Merge blocks into one, with the frames in the order of their indices.

    Raises:
        ValueError: If the shape of a property per atom differs between blocks.
    """
    first = parts[0]
    z, pos, ptr = flat_arrays(parts)
    origin = origins_of(parts) if any(part.origin is not None for part in parts) else None
    states = np.concatenate([part.stated for part in parts]) if any(part.states is not None for part in parts) else None
    joined = FrameBlock(
        file=first.file,
        number=np.concatenate([part.number for part in parts]),
        z=z,
        pos=pos,
        ptr=ptr,
        cell=np.concatenate([part.cell for part in parts]),
        pbc=np.concatenate([part.pbc for part in parts]),
        properties={
            key: column([value for part in parts for value in part.properties[key]]) for key in first.properties
        },
        atom_properties={
            key: concatenated([part.atom_properties[key] for part in parts]) for key in first.atom_properties
        },
        atoms=None
        if first.atoms is None
        else LazyAtoms(maker for part in parts if part.atoms for maker in part.atoms.makers),
        origin=origin,
        states=states,
    )
    return joined.select(np.argsort(joined.number, kind="stable"))


Keep = Callable[[int], bool]
"""Function of the index of a block in its file that returns whether to read the block or skip it."""


BLOCK_SIZE: int = 1000
"""Default number of frames in a block."""


@dataclass(frozen=True)
class ReadOptions:
    """Options of the readers, see :meth:`~pyg_clusters.frames.Frames.open`."""

    properties: tuple[str, ...] = ()
    atom_properties: tuple[str, ...] = ()
    with_atoms: bool = False
    block_size: int = BLOCK_SIZE
    topology: Path | None = None
    fragments: Fragments = "refuse"
    length: float = 1.0


class UnrecoverableFrame(BadFrame):
    """Bad frame after which no other frame can be located."""


class TruncatedFrame(UnrecoverableFrame):
    """Last frame of a file that ends within it, perhaps because the file is still being written."""


def cut_frame(kind: type[UnrecoverableFrame], path: Path, number: int) -> UnrecoverableFrame:
    """Bad frame within which its file ends."""
    whole = "1 complete frame" if number == 1 else f"{number} complete frames"
    return kind(
        str(path), number, f"the file ends within this frame, after {whole}; copy it again, or remove the frame"
    )


class Topology(NamedTuple):
    """Elements of the atoms of a trajectory, and its charge, from another file."""

    file: Path
    numbers: np.ndarray  #: Atomic numbers ``[num_atoms]``.
    pos: np.ndarray  #: Positions in Å ``[num_atoms, 3]``.
    ids: np.ndarray | None  #: LAMMPS atom ids ``[num_atoms]``, if the file has them.
    info: dict[str, object]  #: Charge and spin that the file states, as in the ``info`` of a frame.
