"""Predictions, and conversion of frames to flat tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from pyg_clusters.errors import InputError
from pyg_clusters.frames.atoms import join_several
from pyg_clusters.frames.block import FrameBlock
from pyg_clusters.frames.checks import too_close
from pyg_clusters.frames.join import warn_of_joined
from pyg_clusters.options import Fragments


@dataclass
class Prediction:
    """Predictions in input order, one value per frame or per atom."""

    values: Tensor  #: Energies ``[num_frames]`` in eV, or shieldings ``[num_atoms]`` in ppm.
    num_frames: int
    num_atoms: int
    model: str  #: Name of the class of the model.
    #: Standard deviations of the values in the same unit, if the model provides them (as an ensemble does).
    spread: Tensor | None = None

    @property
    def per_atom(self) -> bool:
        """Whether the values are per atom. (For frames of one atom there is no difference.)"""
        return self.values.numel() != self.num_frames

    @property
    def energy(self) -> Tensor:
        """Energies ``[num_frames]`` in eV; raises an error if the model predicts shieldings."""
        return self._if("an energy model", self.num_frames)

    @property
    def shielding(self) -> Tensor:
        """Shieldings ``[num_atoms]`` in ppm; raises an error if the model predicts energies."""
        return self._if("a model of shieldings", self.num_atoms)

    def _if(self, kind: str, number: int) -> Tensor:
        if self.values.numel() != number:
            what = "atom" if self.per_atom else "cluster"
            raise InputError(f"{self.model} gives a value per {what}: it is not {kind}")
        return self.values


Array = np.ndarray | Tensor


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
        z = np.concatenate([np.zeros(0, dtype=np.int64), *(atoms.numbers for atoms in frames)])
        pos, ptr = _joined(frames, fragments), np.cumsum([0, *(len(atoms) for atoms in frames)])
    z, pos = torch.as_tensor(z), torch.as_tensor(pos)
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
