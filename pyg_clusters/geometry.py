r"""Distances and distance shells of isolated clusters, batched and exact.

A batch of clusters consists of the positions ``pos [num_atoms, 3]`` in Å of all atoms and the offsets
``ptr [num_graphs + 1]`` of the clusters (or ``batch [num_atoms]``; see :func:`batch_to_ptr`).

All functions use the same comparison, :func:`beyond`, on distances from :func:`squared_distance`, so that counts and
edges (:mod:`pyg_clusters.pairs`) agree with the dense products of :mod:`pyg_clusters.nn`.

A *shell* is an interval of distance. With the radii :math:`r_1 < r_2 < \dots < r_n` a distance :math:`d` lies in shell
0 (J) if :math:`d < r_1`, in shell 1 (K) if :math:`r_1 \\le d \\le r_2`, and in shell :math:`k` if
:math:`r_k < d \\le r_{k+1}`. A distance equal to the first radius belongs to the shell outside it; a distance equal to
any other radius belongs to the shell inside it (Modee et al. 2021, section 2.2: J is *below* 3.49 Å, L *beyond* 6.3 Å).
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pyg_clusters.errors import InputError

GALLIUM_RADII: tuple[float, float] = (3.49, 6.3)
"""Shell radii of gallium in Å, from the minima of its pair-distance distribution (Modee et al. 2021, Fig. 4)."""


def check_radii(radii: Sequence[float]) -> tuple[float, ...]:
    """Check shell radii and return them as a tuple of floats.

    Raises:
        InputError: If there are none, or they are not positive, finite and increasing.
    """
    checked = tuple(float(radius) for radius in radii)
    increasing = all(a < b for a, b in zip((0.0, *checked), checked, strict=False))
    if not checked or not increasing or checked[-1] == float("inf"):
        raise InputError(f"shell radii must be positive, finite and increasing (in Å), got {list(checked)}")
    return checked


def parse_radii(text: str) -> tuple[float, ...]:
    """Parse radii in Å such as ``3.49,6.3``."""
    try:
        radii = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"--radii: {text!r} is not a list of numbers separated by commas, as in 3.49,6.3") from error
    try:
        return check_radii(radii)
    except ValueError as error:
        raise InputError(f"--radii: {error}") from error


def is_traced() -> bool:
    """Whether operations are being traced (torch.compile, torch.export, torch.jit.trace) rather than only executed.

    Control flow must then not depend on values of tensors: checks of values and shortcuts are skipped.
    """
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def one_cluster(*of_atoms: Tensor | None) -> Tensor:
    """``batch [num_atoms]`` of a single cluster (all zero), used for ``batch=None`` as in PyG.

    Args:
        *of_atoms: Tensors ``[num_atoms, ...]``; the first that is not ``None`` determines the number of atoms.
    """
    atoms = next((tensor for tensor in of_atoms if tensor is not None), None)
    if atoms is None:
        raise InputError("positions pos [num_atoms, 3] are needed")
    return torch.zeros(atoms.size(0), dtype=torch.long, device=atoms.device)


def num_clusters(batch: Tensor) -> int:
    """Number of clusters of a ``batch [num_atoms]``."""
    if not batch.numel():
        return 0
    number: int = batch.max().item() + 1  # type: ignore[assignment]  # int() would make it constant in torch.export
    if torch.compiler.is_compiling():
        torch._check(number >= 1)
    return number


def sum_over_clusters(values: Tensor, batch: Tensor) -> Tensor:
    """Sums ``[num_graphs, ...]`` of values ``[num_atoms, ...]`` over the clusters of a ``batch [num_atoms]``."""
    return values.new_zeros(num_clusters(batch), *values.shape[1:]).index_add(0, batch, values)


def batch_to_ptr(batch: Tensor, num_graphs: int | None = None) -> Tensor:
    """Offsets ``ptr [num_graphs + 1]`` of the clusters of a sorted ``batch [num_atoms]``.

    Raises:
        ValueError: If ``batch`` is not sorted, so that the atoms of a cluster are not contiguous.
    """
    if not is_traced() and batch.numel() > 1 and bool((batch.diff() < 0).any()):
        raise ValueError("batch must be sorted: the atoms of a cluster must be contiguous")
    if num_graphs is None:
        num_graphs = num_clusters(batch)
    sizes = batch.new_zeros(num_graphs).index_add(0, batch, torch.ones_like(batch))
    return sizes_to_ptr(sizes)


def sizes_to_ptr(sizes: Tensor) -> Tensor:
    """Offsets ``ptr [num_graphs + 1]`` of clusters of ``sizes [num_graphs]`` atoms."""
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])


def check_ptr(ptr: Tensor, num_atoms: int):
    """Check that offsets of clusters end with the number of atoms; there is no check during tracing.

    Raises:
        ValueError: If they do not, for example because the cluster indices ``batch`` were given.
    """
    if not is_traced() and (not ptr.numel() or int(ptr[-1]) != num_atoms):
        last = f"{int(ptr[-1])} as its last element" if ptr.numel() else "no element"
        raise ValueError(
            f"ptr [num_graphs + 1] must end with the number of atoms, {num_atoms}, but has {last}; is it batch "
            "[num_atoms]? batch_to_ptr converts it"
        )


def whole_clusters(ptr: Tensor, at_once: int, power: int = 1) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of successive clusters with offsets ``ptr [num_graphs + 1]``, of about ``at_once`` atoms or one cluster.

    With a power of 2 the number of pairs is bounded instead of that of atoms, with a power of 0 that of clusters.

    Yields:
        The atoms of a block, and the offsets of its clusters in it.

    Example:
        >>> [atoms for atoms, _ in whole_clusters(torch.tensor([0, 40, 80, 130]), 100)]
        [slice(0, 80, None), slice(80, 130, None)]
    """
    block_of_cluster = (ptr.diff().pow(power).cumsum(0) - 1) // at_once
    first = 0
    for count in torch.unique_consecutive(block_of_cluster, return_counts=True)[1].tolist():
        ends, first = ptr[first : first + count + 1], first + count
        yield slice(int(ends[0]), int(ends[-1])), ends - ends[0]


def ptr_to_batch(ptr: Tensor) -> Tensor:
    """Cluster index of each atom, ``batch [num_atoms]``."""
    return torch.repeat_interleave(ptr.diff())


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared distance in Å² between ``a [..., 3]`` and ``b [..., 3]``, computed by subtraction.

    The matrix-product form of :func:`torch.cdist` would have an error of 0.09 Å in single precision for a cluster 100 Å
    from the origin.
    """
    return squared_norm(a - b)


def squared_norm(difference: Tensor) -> Tensor:
    """Squared length in Å² of ``difference [..., 3]``, several times faster than a sum over a last axis of three."""
    dx, dy, dz = difference.unbind(-1)
    return dx * dx + dy * dy + dz * dz


def beyond(squared: Tensor, radii: Sequence[float], shell: int, out: Tensor | None = None) -> Tensor:
    """Mask of the distances that lie in a shell (1 or larger) or outside it.

    Args:
        squared: Squared distances in Å², of any shape. NaN (a padded pair) lies in no shell.
        radii: Increasing shell radii in Å.
        shell: Shell whose inner radius is the boundary.
        out: Output tensor, filled with ones and zeros of its type.
    """
    dtype = squared.dtype if squared.is_floating_point() else torch.get_default_dtype()
    radius = squared.new_tensor(radii[shell - 1], dtype=dtype)
    return (torch.ge if shell == 1 else torch.gt)(squared, radius * radius, out=out)


def shell_of(squared: Tensor, radii: Sequence[float]) -> Tensor:
    """Shell index (long) of each squared distance in Å²."""
    shell = torch.zeros(squared.shape, dtype=torch.long, device=squared.device)
    for number in range(1, len(radii) + 1):
        shell += beyond(squared, radii, number)
    return shell


def check_shells(edge_type: Tensor | None, num_shells: int):
    """Check the shells of edges ``[num_edges]``.

    Raises:
        InputError: If they are required but not given, or outside the range of shells.
    """
    if edge_type is None:
        if num_shells > 1:
            raise InputError(f"edge_type is needed to distinguish {num_shells} shells")
    elif edge_type.numel() and not 0 <= int(edge_type.min()) <= int(edge_type.max()) < num_shells:
        span = f"{int(edge_type.min())} to {int(edge_type.max())}"
        raise InputError(
            f"edge_type must be from 0 to {num_shells - 1}, got {span}: do the radii of graph and model agree?"
        )


def pad_clusters(pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pad clusters to the size of the largest, for dense products.

    Args:
        pos: Positions ``[num_atoms, 3]`` in Å.
        batch: Cluster index of each atom ``[num_atoms]``, sorted; at least one atom.

    Returns:
        Positions ``[num_graphs, largest, 3]``, NaN in the padding; index of each atom among the
        ``num_graphs * largest`` rows ``[num_atoms]``; and cluster sizes ``[num_graphs]``.
    """
    ptr = batch_to_ptr(batch)
    sizes = ptr.diff()
    largest = largest_cluster(sizes, batch)
    index = batch * largest + torch.arange(batch.numel(), device=batch.device) - ptr[batch]
    padded = pos.new_full((sizes.numel() * largest, 3), float("nan")).index_copy(0, index, pos)
    return padded.view(sizes.numel(), largest, 3), index, sizes


def pad_values(values: Tensor, index: Tensor, shape: Sequence[int]) -> Tensor:
    """Values ``[num_atoms, ...]`` in the rows of :func:`pad_clusters`, else zero, ``[num_graphs, largest, ...]``."""
    rows = values.new_zeros(shape[0] * shape[1], *values.shape[1:]).index_copy(0, index, values)
    return rows.view(*shape, *values.shape[1:])


def largest_cluster(sizes: Tensor, batch: Tensor) -> int:
    """Number of atoms of the largest cluster, or an upper bound when operations are traced."""
    if torch.jit.is_tracing():  # the number would become a constant
        return batch.size(0)
    largest: int = sizes.max().item()  # type: ignore[assignment]
    if torch.compiler.is_compiling():
        torch._check(largest >= 1)
    return largest


def beyond_masks(pos: Tensor, radii: Sequence[float], dtype: torch.dtype | None = None) -> Tensor:
    """Cumulative shell masks ``[num_graphs, num_atoms, num_shells - 1, num_atoms]`` of clusters of one (padded) size.

    Entry ``[b, i, s - 1, j]`` is 1 if atom j of cluster b lies in shell s of atom i or outside it. The mask of shell s
    alone is the difference of two successive masks. The diagonal need not be cleared, as the distance of an atom from
    itself is below the first radius.

    Args:
        pos: Positions ``[num_graphs, num_atoms, 3]`` in Å; padded atoms have NaN positions and lie in no shell.
        radii: Increasing shell radii in Å.
        dtype: Type of the result; by default that of ``pos``.
    """
    return shell_masks(squared_distances(pos), radii, dtype)


def squared_distances(pos: Tensor) -> Tensor:
    """Squared distances ``[num_graphs, num_atoms, num_atoms]`` in Å² of ``pos [num_graphs, num_atoms, 3]`` in Å."""
    x, y, z = pos.movedim(-1, 0).contiguous()  # vectorised along the last axis
    squared = (x[:, :, None] - x[:, None]).square_()
    squared += (y[:, :, None] - y[:, None]).square_()
    squared += (z[:, :, None] - z[:, None]).square_()
    return squared


def shell_masks(squared: Tensor, radii: Sequence[float], dtype: torch.dtype | None = None) -> Tensor:
    """Compute :func:`beyond_masks` from :func:`squared_distances`."""
    num_graphs, num_atoms, _ = squared.shape
    masks = squared.new_empty((num_graphs, num_atoms, len(radii), num_atoms), dtype=dtype or squared.dtype)
    for shell in range(1, len(radii) + 1):
        if is_traced():  # compilers do not support writing into a slice by out=
            masks[:, :, shell - 1] = beyond(squared, radii, shell)
        else:
            beyond(squared, radii, shell, out=masks[:, :, shell - 1])
    return masks


def pair_distances(pos: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Differences and distances of all pairs of each cluster, differentiable with respect to the positions.

    Args:
        pos: Positions ``[num_graphs, num_atoms, 3]`` in Å, with arbitrary padding at the end.
        sizes: Cluster sizes ``[num_graphs]``.

    Returns:
        Mask of pairs of different atoms without padding, ``[num_graphs, num_atoms, num_atoms]`` (bool); vectors from
        the first atom to the second in Å, ``[num_graphs, num_atoms, num_atoms, 3]``; and distances, 1 where the mask is
        false.
    """
    valid = torch.arange(pos.size(1), device=pos.device) < sizes[:, None]
    pairs = valid[:, :, None] & valid[:, None] & ~torch.eye(pos.size(1), dtype=torch.bool, device=pos.device)
    pos = torch.where(valid[..., None], pos, 0.0)  # NaN would propagate into the gradients
    difference = pos[:, None] - pos[:, :, None]
    squared = squared_norm(difference)
    return pairs, difference, torch.where(pairs, squared, 1.0).sqrt()


def soft_beyond(distance: Tensor, radius: float | Tensor, width: float) -> Tensor:
    r"""Smooth step from 0 to 1, centred at a radius r, over a width w (all in Å).

    The step is :math:`t^3 (10 - 15 t + 6 t^2)` with :math:`t = (d - r) / w + 1/2`; its first and second derivatives are
    continuous.
    """
    t = ((distance - radius) / width + 0.5).clamp(0.0, 1.0)
    return t * t * t * (t * (6.0 * t - 15.0) + 10.0)


def soft_beyond_masks(distance: Tensor, pairs: Tensor, radii: Sequence[float], width: float) -> Tensor:
    """Smooth :func:`beyond_masks`, ``[num_graphs, num_atoms, num_shells - 1, num_neighbors]``.

    The weight of a shell is the difference of two successive masks. The weights sum to one at every distance; in the
    limit of zero width they are the masks of sharp shells.

    Args:
        distance: Distances ``[num_graphs, num_atoms, num_neighbors]`` in Å.
        pairs: Mask of pairs, of the same shape; for others the result is zero.
        radii: Increasing shell radii in Å.
        width: Width w of the boundaries in Å.
    """
    radius = distance.new_tensor(radii)[:, None]
    distance = torch.where(pairs, distance, -float("inf"))  # within the first boundary, with a mask of zero
    return soft_beyond(distance[:, :, None], radius, width)


def masks_to_counts(masks: Tensor, num_neighbors: Tensor | int) -> Tensor:
    """Shell counts ``[num_graphs, num_atoms, num_shells]`` from :func:`beyond_masks`.

    Args:
        masks: Masks ``[num_graphs, num_atoms, num_shells - 1, num_atoms]``.
        num_neighbors: Number of other atoms in the cluster, the same for all clusters or ``[num_graphs]``.
    """
    further = masks.sum(-1)  # [num_graphs, num_atoms, num_shells - 1]
    first = further.new_empty((*further.shape[:2], 1))
    first[:] = num_neighbors if isinstance(num_neighbors, int) else num_neighbors.view(-1, 1, 1)
    outer = torch.cat([first, further], dim=-1)
    inner = torch.cat([further, torch.zeros_like(first)], dim=-1)
    return outer - inner
