"""Invalid positions (not finite, or of coinciding atoms), and centred positions."""

import numpy as np
import torch
from torch import Tensor

from pyg_clusters.errors import InputError
from pyg_clusters.geometry import squared_distance, squared_norm

COINCIDING: float = 1e-3  # distance in Å below which two atoms coincide

DIRECTION: tuple[float, float, float] = (0.6123724356957945, 0.5477225575051661, 0.5700877125495690)
"""Direction, of irrational components, along which hardly any two atoms of a structure have the same coordinate."""

FARTHEST: float = 1e5  # atoms further than this (in Å) from the origin are not sorted

MAX_COORDINATE: float = 1e6
"""Coordinates beyond this in Å are treated as an error in the file."""

COMPARED: int = 3  # number of atoms following each atom along DIRECTION that are compared with it


def usable_positions(pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Finite positions, and NaN for clusters whose energy is undefined.

    The energy of a cluster is undefined if an atom is :func:`not_finite`, or if two atoms coincide. Models add the
    second tensor to their values per atom, which does not affect other clusters of a batch or synchronise with the
    device.

    Args:
        pos: Positions ``[num_atoms, 3]`` in Å.
        batch: Cluster index of each atom ``[num_atoms]``, sorted.

    Returns:
        Positions ``[num_atoms, 3]``, with zeros in place of those that are not finite; and ``[num_atoms]`` values of 0
        for the atoms of valid clusters, NaN for all others.

    Example:
        >>> pos = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.7], [0.0, 0.0, 0.0], [0.0, 0.0, float("inf")]])
        >>> usable_positions(pos, torch.tensor([0, 0, 1, 1]))[1]
        tensor([0., 0., nan, nan])
    """
    wrong = not_finite(pos)
    pos = torch.where(wrong[:, None], 0.0, pos)
    wrong = (wrong | coinciding(pos.detach(), batch)).to(pos.dtype)
    in_cluster = wrong.new_zeros(batch.numel()).index_add(0, batch, wrong)[batch]
    return pos, torch.where(in_cluster > 0, float("nan"), 0.0).to(pos.dtype)


def not_finite(pos: Tensor) -> Tensor:
    """Whether positions ``[..., 3]`` in Å are not finite, or their squares overflow in single precision, ``[...]``."""
    return ~squared_norm(pos.detach().float()).isfinite()


def defect_of_clusters(pos: Tensor, squared: Tensor) -> Tensor:
    """Second result of :func:`usable_positions` for clusters of one size, ``[num_graphs]``.

    Args:
        pos: Positions ``[num_graphs, num_atoms, 3]`` in Å.
        squared: Squared distances ``[num_graphs, num_atoms, num_atoms]`` in Å²; the diagonals are overwritten.
    """
    squared.diagonal(dim1=1, dim2=2).fill_(float("inf"))
    nearest = squared.amin(dim=(1, 2))
    finite = ~not_finite(pos).any(dim=1)
    return torch.where(finite & (nearest >= COINCIDING**2), 0.0, float("nan")).to(pos.dtype)


def coinciding(pos: Tensor, batch: Tensor) -> Tensor:
    """Whether an atom coincides with another atom of its cluster, ``[num_atoms]`` (bool); ``batch`` is sorted.

    The atoms of a cluster are sorted along a direction and compared only with the next few, so the cost is that of
    sorting. If three or more atoms coincide, at least two are found.
    """
    along = sum(part * share for part, share in zip(pos.double().unbind(1), DIRECTION, strict=True))
    assert isinstance(along, Tensor)
    order = (along.clamp(-FARTHEST, FARTHEST) + 2 * FARTHEST * batch).argsort()
    sorted_pos, sorted_batch = pos[order], batch[order]
    found = torch.zeros_like(batch, dtype=torch.bool)
    for lag in range(1, min(COMPARED + 1, batch.numel())):
        near = squared_distance(sorted_pos[lag:], sorted_pos[:-lag]) < COINCIDING**2
        found[lag:] |= near & (sorted_batch[lag:] == sorted_batch[:-lag])
    return torch.zeros_like(found).index_put((order,), found)


def check_positions(pos: Tensor, ptr: Tensor):
    """Check that positions ``[num_atoms, 3]`` in Å of clusters with offsets ``ptr [num_graphs + 1]`` are valid.

    Raises:
        InputError: If a position is not finite or two atoms of a cluster coincide; the message names the first atom.
    """
    wrong = not_finite(pos)
    if bool(wrong.any()):
        frame, atom, where = _first(wrong, pos, ptr)
        raise InputError(f"frame {frame}: atom {atom} is at {where}, which is not a valid position")
    same = coinciding(pos.detach(), torch.repeat_interleave(ptr.diff()))
    if bool(same.any()):
        frame, atom, where = _first(same, pos, ptr)
        raise InputError(f"frame {frame}: atom {atom} is at {where}, the position of another atom of the frame")


def _first(marked: Tensor, pos: Tensor, ptr: Tensor) -> tuple[int, int, list[float]]:
    """Frame, index in it, and position of the first marked atom."""
    atom = int(marked.nonzero()[0])
    frame = int(torch.searchsorted(ptr, atom, right=True)) - 1
    return frame, atom - int(ptr[frame]), pos[atom].tolist()


def centred(pos: np.ndarray, ptr: np.ndarray) -> np.ndarray:
    """Positions ``[num_atoms, 3]`` in Å relative to the mean of their frame, in double precision.

    The rounding error of a cast to single precision then depends on the extent of a cluster, not on its distance from
    the origin.

    Example:
        >>> centred(np.array([[1e4, 0, 0], [1e4 + 3, 0, 0]]), np.array([0, 2]))[:, 0].tolist()
        [-1.5, 1.5]
    """
    pos, sizes = pos.astype(np.float64, copy=False), np.diff(ptr)
    if not len(sizes):
        return pos
    return pos - np.repeat(np.add.reduceat(pos, ptr[:-1]) / sizes[:, None], sizes, axis=0)
