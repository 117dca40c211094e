r"""Pairs of atoms of isolated clusters: all pairs, pairs within a radius, neighbours per shell, and bond lengths.

Neighbours are never dropped. In small clusters all pairs are compared. In clusters of :data:`LARGE` or more atoms a
tree (:class:`scipy.spatial.cKDTree`) finds near pairs, and the number of atoms beyond the last radius follows from the
total number: the cost per atom does not grow with the size of the cluster.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from ase.data import covalent_radii
from torch import Tensor

from pyg_clusters.errors import InputError
from pyg_clusters.geometry import (
    batch_to_ptr,
    beyond,
    check_ptr,
    check_radii,
    check_shells,
    is_traced,
    largest_cluster,
    pad_clusters,
    pad_values,
    ptr_to_batch,
    shell_of,
    squared_distance,
    squared_distances,
)

LARGE: int = 500
"""Smallest number of atoms of a large cluster."""

MAX_PAIRS_AT_ONCE: int = 250_000
"""Maximum number of candidate pairs in memory at a time, so that they fit in the cache."""

NEIGHBORS: float = 1.3
"""Maximum distance of neighbours in sums of covalent radii: the first shell of a metal."""

COVALENT_RADII: Tensor = torch.from_numpy(covalent_radii)
"""Covalent radii in Å by atomic number."""


def is_large(clusters: Tensor | int) -> bool:
    """Whether the largest cluster, given by offsets or its size, is large.

    The result is ``False`` during tracing, when control flow must not depend on values.
    """
    if is_traced():
        return False
    if isinstance(clusters, Tensor):
        clusters = int(clusters.diff().max()) if clusters.numel() > 1 else 0
    return clusters >= LARGE


def near_pairs(pos: Tensor, batch: Tensor, reach: float) -> Tensor:
    """Unordered pairs of atoms of a cluster within ``reach`` in Å, ``[2, num_pairs]`` in arbitrary order, from a tree.

    Pairs that are further apart by no more than rounding errors are included, so that
    :func:`~pyg_clusters.geometry.beyond` can compare them in the precision of the positions, which must be finite.
    """
    from scipy.spatial import cKDTree  # importing it changes warning filters

    if not batch.numel():
        return batch.new_zeros(2, 0)
    reach += 1e-6 * reach + 8 * torch.finfo(pos.dtype).eps * float(pos.detach().abs().max())
    elsewhere = 2 * reach * batch[:, None]  # separates clusters in a fourth dimension
    tree = cKDTree(torch.cat([pos.detach().double(), elsewhere], dim=1).cpu().numpy())
    return torch.from_numpy(tree.query_pairs(reach, output_type="ndarray")).to(batch.device).T


def nearest_distances(pos: Tensor) -> Tensor:
    """Distance from each atom of a cluster to its nearest neighbour, ``[num_atoms]`` in Å, from a tree."""
    from scipy.spatial import cKDTree

    tree = cKDTree(pos.detach().double().cpu().numpy())
    return torch.from_numpy(tree.query(tree.data, k=2)[0][:, 1]).to(pos)


def both_directions(pairs: Tensor, by_source: bool = True) -> tuple[Tensor, Tensor]:
    """Both ordered pairs of each unordered pair in ``pairs [2, num_pairs]``.

    Returns:
        ``edge_index [2, 2 * num_pairs]`` (source j, target i), ordered by target (and by source, if ``by_source``);
        and the index of the unordered pair of each, ``[2 * num_pairs]``.
    """
    edge_index = torch.cat([pairs, pairs.flip(0)], dim=1)
    order = edge_index[0].int().sort(stable=True).indices if by_source else None
    target = edge_index[1] if order is None else edge_index[1].index_select(0, order)
    by_target = target.int().sort(stable=True).indices  # two sorts by small integers are faster than one by large ones
    order = by_target if order is None else order.index_select(0, by_target)
    return edge_index.index_select(1, order), order.remainder_(pairs.size(1)) if order.numel() else order


class NearShells(NamedTuple):
    """Neighbours in all shells but the outermost, and the counts of all shells."""

    edge_index: Tensor  #: Pairs ``[2, num_edges]`` (source j, target i), ordered by target.
    edge_type: Tensor  #: Shell of j around i, ``[num_edges]``.
    counts: Tensor  #: Number of neighbours in each shell, ``[num_atoms, num_shells]`` (long).


def near_shells(pos: Tensor, ptr: Tensor, radii: Sequence[float]) -> NearShells:
    """Shells of large clusters, see :func:`shell_pairs` and :func:`shell_counts`."""
    num_inner, num_atoms = len(radii), pos.size(0)
    pairs = near_pairs(pos, ptr_to_batch(ptr), radii[-1])
    shell = shell_of(squared_distance(*(pos.index_select(0, row) for row in pairs)), radii)
    inside = (shell < num_inner).nonzero().squeeze(1)
    pairs, shell = pairs.index_select(1, inside), shell.index_select(0, inside)
    inner = torch.bincount((pairs * num_inner + shell).flatten(), minlength=num_atoms * num_inner).view(-1, num_inner)
    others = torch.repeat_interleave(ptr.diff() - 1, ptr.diff())[:, None]
    counts = torch.cat([inner, others - inner.sum(dim=1, keepdim=True)], dim=1)
    edge_index, pair = both_directions(pairs, by_source=False)
    return NearShells(edge_index, shell.index_select(0, pair), counts)


def all_pairs(ptr: Tensor) -> Tensor:
    """All ordered pairs of different atoms of the same cluster.

    Returns:
        ``edge_index [2, num_pairs]``, source j in row 0 and target i in row 1, ordered by target, then by source.
    """
    return torch.cat([pairs for pairs in _pair_blocks(ptr, max_pairs=None)], dim=1)


def radius_pairs(pos: Tensor, ptr: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
    """Ordered pairs of atoms of the same cluster closer than ``cutoff`` (in Å, exclusive).

    Returns:
        ``edge_index [2, num_pairs]`` (source j, target i; ordered by target, then source) and the distances
        ``edge_weight [num_pairs]`` in Å.
    """
    (cutoff,) = check_radii([cutoff])
    check_ptr(ptr, pos.size(0))
    if is_large(ptr):
        edge_index, _ = both_directions(near_pairs(pos, ptr_to_batch(ptr), cutoff))
        blocks = iter(edge_index.split(MAX_PAIRS_AT_ONCE, dim=1))
    else:
        blocks = _pair_blocks(ptr, MAX_PAIRS_AT_ONCE)
    kept, distances = [], []
    for pairs in blocks:
        squared = squared_distance(pos[pairs[0]], pos[pairs[1]])
        inside = ~beyond(squared, [cutoff], 1)
        kept.append(pairs[:, inside])
        distances.append(squared[inside].sqrt())
    return torch.cat(kept, dim=1), torch.cat(distances)


def radius_slots(pos: Tensor, batch: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
    """Like :func:`radius_pairs`, with a fixed number of pairs per atom, the size of the largest cluster.

    Returns:
        ``edge_index [2, num_atoms * largest]`` (source j, target i) and the distances ``edge_weight`` in Å, equal to
        the cutoff for pairs that do not exist or are further apart.
    """
    ptr = batch_to_ptr(batch)
    slot = torch.arange(largest_cluster(ptr.diff(), batch), device=batch.device)
    atom = torch.arange(batch.size(0), device=batch.device)[:, None]
    source = ptr[batch][:, None] + slot  # [num_atoms, largest]
    pairs = (source < ptr[batch + 1][:, None]) & (source != atom)
    source = torch.where(pairs, source, 0)
    squared = torch.where(pairs, squared_distance(pos[source], pos[:, None]), cutoff**2)
    edge_index = torch.stack([source.flatten(), atom.expand_as(source).flatten()])
    return edge_index, squared.sqrt().clamp(max=cutoff).flatten()


def shell_pairs(pos: Tensor, ptr: Tensor, radii: Sequence[float], cutoff: float | None = None) -> tuple[Tensor, Tensor]:
    """Ordered pairs of atoms of the same cluster and their shell: all, or those closer than ``cutoff`` in Å.

    Returns:
        ``edge_index [2, num_pairs]`` (source j, target i) and ``edge_type [num_pairs]``, the shell of j around i.
    """
    radii = check_radii(radii)
    check_ptr(ptr, pos.size(0))
    pairs = all_pairs(ptr) if cutoff is None else radius_pairs(pos, ptr, cutoff)[0]
    return pairs, shell_of(squared_distance(pos[pairs[0]], pos[pairs[1]]), radii)


def shell_counts(pos: Tensor, ptr: Tensor, radii: Sequence[float]) -> Tensor:
    """Number of neighbours of each atom in each shell, ``[num_atoms, num_shells]`` (long).

    For two radii this is the topological atomic descriptor of Modee et al. 2021, section 2.2. Rows sum to the cluster
    size minus one.
    """
    radii = check_radii(radii)
    check_ptr(ptr, pos.size(0))
    if is_large(ptr):
        return near_shells(pos, ptr, radii).counts
    num_shells = len(radii) + 1
    counts = torch.zeros(pos.size(0) * num_shells, dtype=torch.long, device=pos.device)
    for pairs in _pair_blocks(ptr, MAX_PAIRS_AT_ONCE):
        shell = shell_of(squared_distance(pos[pairs[0]], pos[pairs[1]]), radii)
        counts += torch.bincount(pairs[1] * num_shells + shell, minlength=counts.numel())
    return counts.view(-1, num_shells)


def edge_shell_counts(edge_index: Tensor, edge_type: Tensor, num_atoms: int, num_shells: int) -> Tensor:
    """Shell counts ``[num_atoms, num_shells]`` (long) as the in-degrees of an existing shell graph."""
    check_shells(edge_type, num_shells)
    flat = edge_index[1] * num_shells + edge_type
    return torch.bincount(flat, minlength=num_atoms * num_shells).view(num_atoms, num_shells)


def check_complete(edge_index: Tensor, batch: Tensor):
    """Check that a graph contains all pairs of its clusters, which is required to count neighbours in every shell.

    Raises:
        InputError: If pairs are missing.
    """
    if is_traced():
        return
    sizes = torch.bincount(batch)
    num_pairs = int((sizes * (sizes - 1)).sum())
    if edge_index.size(1) != num_pairs:
        raise InputError(
            f"a graph of all {num_pairs:,} pairs of atoms is needed to count neighbours, got {edge_index.size(1):,}; "
            "create it without a cutoff"
        )


def distinct_counts(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct rows ``[num_rows, num_shells]`` of counts ``[num_atoms, num_shells]``, and the row of each atom.

    Atoms of many clusters share few distinct rows, so networks applied to the counts are evaluated once per row instead
    of once per atom.
    """
    base = int(counts.max()) + 1 if counts.numel() else 1
    if base ** counts.size(1) >= 2**63:
        return torch.unique(counts, dim=0, return_inverse=True)
    powers = base ** torch.arange(counts.size(1), device=counts.device)
    keys, row_of_atom = torch.unique((counts.long() * powers).sum(-1), return_inverse=True)
    rows = keys[:, None] // powers % base
    return rows.to(counts.dtype), row_of_atom


def _pair_blocks(ptr: Tensor, max_pairs: int | None) -> Iterator[Tensor]:
    """All ordered pairs ``[2, n]`` of the clusters, in blocks of targets with at most about ``max_pairs`` pairs."""
    sizes = ptr.diff()
    per_target = torch.repeat_interleave(sizes, sizes)  # candidate sources of each target, itself included
    start = torch.repeat_interleave(ptr[:-1], sizes)
    ends = per_target.cumsum(0)
    num_pairs = int(ends[-1]) if ends.numel() else 0
    if max_pairs is None or num_pairs <= max_pairs:
        bounds = [0, per_target.numel()]
    else:
        marks = torch.arange(max_pairs, num_pairs, max_pairs, device=ptr.device)
        cuts = torch.searchsorted(ends, marks).clamp(min=1)
        bounds = [0, *torch.unique(cuts).tolist(), per_target.numel()]
    for first, last in pairwise(bounds):
        count = per_target[first:last]
        target = torch.repeat_interleave(torch.arange(first, last, device=ptr.device), count)
        within = torch.arange(target.numel(), device=ptr.device) - torch.repeat_interleave(
            count.cumsum(0) - count, count
        )
        source = start[target] + within
        different = source != target
        yield torch.stack([source[different], target[different]])


@torch.no_grad()
def bond_measures(z: Tensor, pos: Tensor, batch: Tensor, scale: Tensor | None = None) -> Tensor:
    """Shortest distance, largest coordination number, and largest distance of an atom from its nearest neighbour.

    To find the shortest distance, distances are multiplied by the ``scale`` of their elements, a matrix over atomic
    numbers, if it is given.

    Returns:
        Tensor ``[num_graphs, 3]``, distances in sums of covalent radii; infinity, 0 and 0 for a single atom.

    Example:
        >>> dimer = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.44]])
        >>> bond_measures(torch.tensor([31, 31]), dimer, torch.tensor([0, 0]))
        tensor([[1., 1., 1.]])
    """
    close, nearest, neighbors = bonds_of_atoms(z, pos.detach(), batch, scale)
    far = torch.where(nearest.isfinite(), nearest, 0.0)
    zeros = nearest.new_zeros(int(batch[-1]) + 1)
    shortest = zeros.scatter_reduce(0, batch, close, "amin", include_self=False)
    most, farthest = (zeros.scatter_reduce(0, batch, each, "amax") for each in (neighbors.to(pos.dtype), far))
    return torch.stack([shortest, most, farthest], dim=1)


def bonds_of_atoms(z: Tensor, pos: Tensor, batch: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Smallest scaled distance of each atom, distance from its nearest neighbour, and coordination number.

    All are ``[num_atoms]``, distances in sums of covalent radii; infinity, infinity and 0 for a single atom.
    """
    radii = COVALENT_RADII.to(pos.device, pos.dtype)[z]
    scale = None if scale is None else scale.to(pos.device, pos.dtype)
    if is_large(batch.numel()) and is_large(batch_to_ptr(batch)):
        return _of_atoms_of_large(z, radii, pos.nan_to_num(0.0, 0.0, 0.0), batch, scale)
    padded, place, _ = pad_clusters(pos, batch)
    radii = pad_values(radii, place, padded.shape[:2])
    ratio = squared_distances(padded).sqrt_() / (radii[:, :, None] + radii[:, None])
    ratio.diagonal(dim1=1, dim2=2).fill_(float("inf"))
    ratio = ratio.nan_to_num_(nan=float("inf"), posinf=float("inf"))  # padding
    nearest, neighbors = ratio.amin(2).flatten()[place], (ratio < NEIGHBORS).sum(2).flatten()[place]
    if scale is None:
        return nearest, nearest, neighbors
    z = pad_values(z, place, padded.shape[:2])
    return (ratio * scale[z[:, :, None], z[:, None]]).amin(2).flatten()[place], nearest, neighbors


def _of_atoms_of_large(
    z: Tensor, radii: Tensor, pos: Tensor, batch: Tensor, scale: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Like :func:`bonds_of_atoms`, from near pairs; only atoms without a neighbour are compared with all others."""
    pairs, ratio = near_ratios(radii, pos, batch)
    nearest = torch.full_like(radii, float("inf"))
    for row in pairs:
        nearest = nearest.scatter_reduce(0, row, ratio, "amin")
    neighbors = torch.bincount(pairs[:, ratio < NEIGHBORS].flatten(), minlength=batch.numel())
    for atom in (neighbors == 0).nonzero().flatten().tolist():
        others = batch == batch[atom]
        others[atom] = False
        apart = squared_distance(pos[others], pos[atom]).sqrt() / (radii[others] + radii[atom])
        nearest[atom] = apart.min() if apart.numel() else float("inf")
    if scale is None:
        return nearest, nearest, neighbors
    close, scaled = nearest.clone(), ratio * scale[z[pairs[0]], z[pairs[1]]]  # only neighbours have a scale below 1
    for row in pairs:
        close = close.scatter_reduce(0, row, scaled, "amin")
    return close, nearest, neighbors


def near_ratios(radii: Tensor, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs of at least all neighbours ``[2, num_pairs]``, and their distances in sums of covalent radii."""
    pairs = near_pairs(pos, batch, 2 * NEIGHBORS * float(radii.max()))
    first, second = pairs
    distance = squared_distance(pos.index_select(0, first), pos.index_select(0, second)).sqrt()
    return pairs, distance / (radii.index_select(0, first) + radii.index_select(0, second))
