"""Frames as ASE objects: read one by one, joined, and converted to PyG graphs and back, or to flat tensors."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols
from torch import Tensor
from torch_geometric.data import Batch, Data

from pyg_clusters.errors import InputError
from pyg_clusters.frames.ase_reader import atom_property, contradiction, frame_property, no_element
from pyg_clusters.frames.block import BadFrame, FrameBlock, arrays_of
from pyg_clusters.frames.checks import check_block, too_close
from pyg_clusters.frames.energy_units import check_forces_in_ev, check_is_in_ev
from pyg_clusters.frames.join import (
    Joined,
    advised,
    all_of_frame,
    isolated,
    join_frames,
    pieces_without_cell,
    warn_of_joined,
)
from pyg_clusters.frames.provenance import outdated, set_origin
from pyg_clusters.frames.reader import read_blocks
from pyg_clusters.nn.output_scale import in_needed_precision
from pyg_clusters.options import Fragments
from pyg_clusters.positions import MAX_COORDINATE

ENERGIES: tuple[str, ...] = ("energy", "REF_energy")  # names of the energy of a frame, in eV
FORCES: tuple[str, ...] = ("forces", "REF_forces")  # names of the forces of a frame, in eV/Å

Array = np.ndarray | Tensor  # of NumPy or PyTorch

FORCE: str = "force"
"""Key of the forces ``[num_atoms, 3]`` in eV/Å in the graphs of the data sets and of :func:`to_data`."""


@dataclass(frozen=True)
class AtomsFrame:
    """Frame that can be used."""

    file: str  #: The file, as specified by the user.
    number: int  #: Index of the frame in the file, from 0.
    atoms: Atoms  #: The cluster, not periodic, with its ``info`` and ``arrays``.


def read_atoms(
    paths: Iterable[str | os.PathLike],
    *,
    problem: Callable[[Atoms], str | None] | None = None,
    on_bad: Literal["stop", "skip"] = "stop",
    fragments: Fragments = "refuse",
) -> Iterator[AtomsFrame | BadFrame]:
    """Read and check the frames of files one by one, for work that takes longer than reading them.

    Args:
        paths: Files, folders and patterns, see :func:`~pyg_clusters.frames.expand_paths`.
        problem: Function that returns the reason why a frame cannot be used, or ``None`` if it can.
        on_bad: ``"stop"`` raises an error at the first frame that cannot be used, ``"skip"`` yields bad frames.
        fragments: See :meth:`~pyg_clusters.frames.Frames.open`.

    Raises:
        InputError: If a file or, with ``on_bad="stop"``, a frame cannot be used.
    """
    for block in read_blocks(paths, with_atoms=True, block_size=100, on_bad="skip", fragments=fragments):
        usable, unusable = check_block(block, on_bad="skip")
        index = {number: frame for frame, number in enumerate(usable.number.tolist())}
        faults = {bad.number: bad for bad in unusable}
        for number in sorted([*index, *faults]):
            bad = faults.get(number)
            if bad is None and usable.atoms is not None:
                atoms = usable.atoms[index[number]]
                reason = problem(atoms) if problem else None
                if reason is None:
                    yield AtomsFrame(block.file, number, atoms)
                    continue
                bad = BadFrame(block.file, number, reason)
            assert bad is not None
            if on_bad == "stop":
                raise bad.error
            yield bad


def good_frames(frames: Iterable[AtomsFrame | BadFrame], bad: list[BadFrame]) -> Iterator[AtomsFrame]:
    """Yield the frames that can be used, with their origin in ``info``, and add the others to ``bad``."""
    for frame in frames:
        if isinstance(frame, BadFrame):
            bad.append(frame)
        else:
            set_origin(frame.atoms.info, frame.file, frame.number)
            yield frame


def join_atoms(atoms: Atoms, fragments: Fragments = "refuse") -> Atoms:
    """Copy of a cluster, joined across the faces of its cell and no longer periodic, with the cell of the original.

    Args:
        atoms: The cluster, periodic or not.
        fragments: ``"refuse"`` raises at a cluster in several pieces (without a periodic cell, if they are far apart),
            ``"keep"`` keeps the pieces (in a periodic cell at their nearest images).

    Raises:
        InputError: If it is not an isolated cluster.

    Example:
        >>> cut = Atoms("Ga2", positions=[[0.1, 5.0, 5.0], [17.5, 5.0, 5.0]], cell=[20.0, 20.0, 20.0], pbc=True)
        >>> joined = join_atoms(cut)
        >>> round(float(joined.get_distance(0, 1)), 3), bool(joined.pbc.any())
        (2.6, False)
    """
    joined = join_several([atoms], fragments)
    if joined.problems:
        raise InputError(f"the structure {joined.problems[0]}")
    return isolated(atoms, joined.pos)


def join_several(frames: Sequence[Atoms], fragments: Fragments = "refuse") -> Joined:
    """Join ASE objects as by :func:`join_atoms`, with the problem of each that is not an isolated cluster."""
    z, pos, ptr, cell, pbc = arrays_of(frames)
    unknown = {frame: reason for frame, atoms in enumerate(frames) if (reason := no_element(atoms, 1))}
    if unknown:
        z = np.where((z < 1) | (z >= len(chemical_symbols)), 1, z)
    joined = join_frames(z, pos, ptr, cell, pbc, fragments)
    problems = {frame: advised(problem) for frame, problem in joined.problems.items()}
    problems |= {frame: f"{reason}; remove it" for frame, reason in unknown.items()}
    if fragments == "refuse":
        free = ~(pbc & cell.any(axis=2)).any(axis=1) & all_of_frame(np.abs(pos) <= MAX_COORDINATE, ptr)
        examined = np.setdiff1d(np.flatnonzero(free), list(problems))
        problems |= dict(pieces_without_cell(z, pos, ptr, examined))
    return Joined(joined.pos, joined.moved, problems)


def labels_of(atoms: Atoms) -> dict[str, object]:
    """Values per frame and per atom in addition to the structure."""
    arrays = {name: values for name, values in atoms.arrays.items() if name not in ("numbers", "positions")}
    return atoms.info | arrays | (atoms.calc.results if atoms.calc is not None else {})


def to_data(atoms: Atoms, dtype: torch.dtype | None = None, fragments: Fragments = "refuse") -> Data:
    """Convert a cluster to a graph without edges, the input of models and transforms of this package.

    The graph has ``z [num_atoms]``, ``pos [num_atoms, 3]`` in Å and, if present in ``info``, ``arrays`` or the results
    of a calculator, ``y [1]``, the ``energy`` or ``REF_energy`` in eV, and ``force [num_atoms, 3]``, the ``forces`` or
    ``REF_forces`` in eV/Å. A cluster in a periodic cell is joined across the faces of the cell.

    Args:
        atoms: The cluster.
        dtype: Type of the numbers, by default that of torch. An energy that single precision would round by more than
            0.1 meV is in double precision.
        fragments: Treatment of a cluster in several pieces, see :func:`~pyg_clusters.frames.join_atoms`.

    Raises:
        InputError: If it is not an isolated cluster, has two energies or forces that differ, states another unit than
            eV or eV/Å, or has a calculator with results at other positions.

    Example:
        >>> dimer = Atoms("Ga2", positions=[[0.0, 0.0, 0.0], [0.0, 0.0, 2.5]], info={"energy": -1.5})
        >>> to_data(dimer)
        Data(pos=[2, 3], z=[2], y=[1])
    """
    dtype = torch.get_default_dtype() if dtype is None else dtype
    cluster = join_atoms(atoms, fragments)
    data = Data(z=torch.from_numpy(cluster.numbers).long(), pos=torch.from_numpy(cluster.positions).to(dtype))
    if problem := outdated(atoms):
        raise InputError(problem)
    for key in ENERGIES:
        if frame_property(atoms, key) is not None:
            check_is_in_ev(atoms.info, key)
    for key in (*ENERGIES, *FORCES):
        if reason := contradiction(atoms, key):
            raise InputError(f"the structure is ambiguous: {reason}")
    energy = _one_of(ENERGIES, [frame_property(atoms, key) for key in ENERGIES], ())
    forces = _one_of(FORCES, [atom_property(atoms, key) for key in FORCES], (len(atoms), 3))
    if forces is not None:
        check_forces_in_ev(atoms.info)
    if energy is not None:
        y = torch.from_numpy(energy.reshape(1))
        data.y = in_needed_precision(y) if dtype == torch.float32 else y.to(dtype)
    if forces is not None:
        data[FORCE] = torch.from_numpy(forces).to(dtype)
    return data


def to_atoms(data: Data) -> Atoms:
    """Convert a graph to a cluster without a cell, with the energy ``y [1]`` in eV and the forces ``force`` in eV/Å.

    Shieldings ``y [num_atoms]`` in ppm, of two or more atoms, are stored in ``arrays["nmr_shielding"]``.

    Args:
        data: Graph of one cluster with ``z`` and ``pos``; split a batch by ``batch.to_data_list()``.

    Raises:
        InputError: If it is a batch, or lacks elements or positions.

    Example:
        >>> dimer = Atoms("Ga2", positions=[[0.0, 0.0, 0.0], [0.0, 0.0, 2.5]], info={"energy": -1.5})
        >>> to_atoms(to_data(dimer)).get_potential_energy()
        -1.5
    """
    if isinstance(data, Batch):
        raise InputError("got a batch of clusters, not a graph; convert the graphs in batch.to_data_list() one by one")
    missing = [key for key in ("z", "pos") if key not in data]
    if missing:
        raise InputError(f"the graph has no {' and no '.join(missing)}; it has {', '.join(data.keys()) or 'nothing'}")
    atoms = Atoms(data.z.cpu().numpy(), data.pos.detach().double().cpu().numpy())
    results = {}
    if FORCE in data:
        results["forces"] = data[FORCE].detach().double().cpu().numpy()
    if "y" in data:
        y = data.y.detach().double().cpu().numpy()
        if y.size == 1:
            results["energy"] = float(y.reshape(()))
        elif y.shape == (len(atoms),):
            atoms.arrays["nmr_shielding"] = y
        else:
            raise InputError(f"y has the shape {list(y.shape)}: neither one energy nor a value per atom ({len(atoms)})")
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def _one_of(names: tuple[str, ...], values: list, shape: tuple[int, ...]) -> np.ndarray | None:
    """The value under any of the names; values under several names must agree."""
    found = {
        name: np.asarray(value, dtype=float) for name, value in zip(names, values, strict=True) if value is not None
    }
    for name, value in found.items():
        if value.size != np.prod(shape, dtype=int) or (shape and value.shape != shape):
            raise InputError(f"{name} has the shape {list(value.shape)}, not {list(shape)}")
        if not np.isfinite(value).all():
            raise InputError(f"{name} must be finite, got {value[~np.isfinite(value)][0]}; remove it")
    if not found:
        return None
    first = next(iter(found.values()))
    if not all(np.allclose(first, value, rtol=1e-9, atol=1e-6) for value in found.values()):
        raise InputError(f"{' and '.join(found)} differ; remove one of them")
    return first


def flat_tensors(
    z: Array | Sequence[Atoms], pos: Array | None, ptr: Array | None, fragments: Fragments = "refuse"
) -> tuple[Tensor, Tensor, Tensor]:
    """Convert frames to atomic numbers ``[num_atoms]``, positions ``[num_atoms, 3]`` and offsets ``[num_frames + 1]``.

    Periodic ASE ``Atoms`` are joined across the faces of their cells; for ``fragments`` see
    :func:`~pyg_clusters.frames.join_atoms`.

    Raises:
        InputError: If a frame is not an isolated cluster.
        ValueError: If the shapes do not match.
    """
    if pos is None and isinstance(z, np.ndarray | Tensor):
        raise ValueError("positions are needed in addition to atomic numbers (or a list of ASE Atoms instead of both)")
    if pos is None:
        frames = list(z)
        z, _, ptr, _, _ = arrays_of(frames)
        pos = _joined(frames, fragments)
    z, pos = torch.as_tensor(z), torch.as_tensor(pos)
    pos = pos if pos.is_floating_point() else pos.double()
    if ptr is None:
        if z.dim() != 2 or pos.shape != (*z.shape, 3):
            raise ValueError(
                f"without ptr, z [frames, atoms] and pos [frames, atoms, 3] are needed, got {_shapes(z, pos)}"
            )
        ptr = torch.arange(z.size(0) + 1) * z.size(1)
        z, pos = z.flatten(), pos.flatten(0, 1)
    ptr = torch.as_tensor(ptr).long()
    ends = ptr[[0, -1]].tolist() if ptr.numel() else []
    if pos.shape != (z.numel(), 3) or ends != [0, z.numel()] or bool((ptr.diff() < 1).any()):
        raise ValueError(
            "z [atoms], pos [atoms, 3] and increasing ptr [frames + 1] from 0 to atoms are needed, got "
            f"{_shapes(z, pos)} and ptr with ends {ends}"
        )
    return z.long().cpu(), pos.cpu(), ptr.cpu()


def _joined(frames: Sequence[Atoms], fragments: Fragments) -> np.ndarray:
    joined = join_several(frames, fragments)
    for frame, problem in joined.problems.items():
        raise InputError(f"frame {frame}: {problem}")
    warn_of_joined(int(joined.moved.sum()), len(frames))
    return joined.pos


def check_distances(z: Tensor, pos: Tensor, ptr: Tensor):
    """Raise an :class:`~pyg_clusters.errors.InputError` if two atoms of a frame are implausibly close."""
    num_frames = ptr.numel() - 1
    cell, pbc = np.zeros((num_frames, 3, 3)), np.zeros((num_frames, 3), dtype=bool)
    block = FrameBlock("", np.arange(num_frames), z.numpy(), pos.numpy(), ptr.numpy(), cell, pbc)
    for frame, problem in too_close(block):
        raise InputError(f"frame {frame}: {problem}; are its positions in Å?")


def _shapes(z: Tensor, pos: Tensor) -> str:
    return f"z {list(z.shape)} and pos {list(pos.shape)}"
