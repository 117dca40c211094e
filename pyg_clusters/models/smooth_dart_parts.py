"""Parts of SmoothDART: the repulsion of nuclei, and large clusters from near pairs and sums over all atoms."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from ase.units import Bohr, Hartree
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pyg_clusters.geometry import batch_to_ptr, soft_beyond, squared_norm
from pyg_clusters.nn.neighbor_sums import Neighbors, neighbor_sum
from pyg_clusters.pairs import COVALENT_RADII, both_directions, near_pairs

COULOMB: float = Hartree * Bohr  # Coulomb energy of two unit charges times their distance, in eV Å

SCREENING: tuple[tuple[float, float], ...] = (
    (0.18175, 3.19980),
    (0.50986, 0.94229),
    (0.28022, 0.40290),
    (0.02817, 0.20162),
)
"""Weights and exponents of the universal screening function."""

FULL: float = 0.8  # the repulsion is fully switched on below this fraction of the shortest training distance


def screened_repulsion(distance: Tensor, first: Tensor, second: Tensor) -> Tensor:
    r"""Ziegler-Biersack-Littmark repulsion of two atoms in eV (*The Stopping and Range of Ions in Solids*, 1985).

    .. math::
        E(d) = \frac{Z_1 Z_2 e^2}{d} \sum_k c_k \exp\Big(-b_k \frac{d}{a}\Big), \qquad
        a = \frac{0.8854\, a_0}{Z_1^{0.23} + Z_2^{0.23}}

    Distances in Å and the atomic numbers of both atoms have the same shape.

    Example:
        >>> gold = torch.tensor(79)
        >>> screened_repulsion(torch.tensor([1.5, 2.5]), gold, gold).round(decimals=1)
        tensor([64.2000,  2.9000])
    """
    first, second = first.to(distance.dtype), second.to(distance.dtype)
    reduced = distance * (first**0.23 + second**0.23) / (0.8854 * Bohr)
    screening = sum(weight * torch.exp(-exponent * reduced) for weight, exponent in SCREENING)
    return COULOMB * first * second / distance * screening


def repulsion(distance: Tensor, first: Tensor, second: Tensor, shortest: Tensor) -> Tensor:
    """Repulsion of two atoms in eV below the shortest distance of a training set.

    :func:`screened_repulsion` is switched off smoothly between the fraction :data:`FULL` of the shortest distance and
    the shortest distance itself, so that it does not contribute to the energies of the training set. ``shortest`` is
    that distance in units of the sum of covalent radii, 0 for no repulsion.
    """
    radii = COVALENT_RADII.to(distance.device, distance.dtype)
    end = shortest.to(distance.dtype) * (radii[first] + radii[second])
    off = soft_beyond(distance / end.clamp(min=1e-3), (1 + FULL) / 2, 1 - FULL)
    return torch.where(distance < end, (1 - off) * screened_repulsion(distance, first, second), 0.0)


ATOMS_AT_ONCE: int = 512
"""Number of atoms evaluated at a time, so that descriptors and activations fit in the cache of a CPU."""


def large_atomic_energies(model: Any, z: Tensor | None, pos: Tensor, batch: Tensor) -> Tensor:
    r"""Contributions of the atoms to the energies, ``[num_atoms]`` in eV, equal to the dense products up to rounding.

    The sum over the outermost shell is the sum over all atoms minus the sum over the nearer ones,

    .. math::
        \sum_s \sum_{j \ne i} w_s(d_{ij})\, h_{s,j} = \sum_{j \ne i} h_{S-1,j} + \sum_{s < S-1} \sum_{j \ne i}
        w_s(d_{ij})\, (h_s - h_{S-1})_j

    and therefore needs only pairs within the last radius. To save memory, descriptors and networks are evaluated on
    one block of atoms at a time, and recomputed for gradients. The arguments are those of the model; positions must be
    finite.
    """
    reach = model.descriptor_radii[-1] + model.width / 2
    order = _order_of_cells(pos.detach(), batch, reach)
    z, pos = None if z is None else z[order], pos.index_select(0, order)
    pairs = near_pairs(pos, batch, max(reach, model.radii[-1] + model.width / 2))
    distance = squared_norm(pos.index_select(0, pairs[0]) - pos.index_select(0, pairs[1])).sqrt()
    describe, blocks = _descriptor(model, z, pos, batch, pairs[:, distance < reach])
    if model.training and not model.inputs.fitted:
        model.inputs.fit(torch.cat([describe(*block).detach() for block in blocks]))
    shells = _shells(model, pairs, distance, batch.numel())
    terms = _in_blocks(lambda *block: model.conv.near_terms(model.inputs(describe(*block))), blocks)
    y = _sums(terms, shells, batch)
    for conv in model.further_convs:
        terms = _in_blocks(conv.near_terms, zip(y.split(ATOMS_AT_ONCE), strict=True))
        y = _sums(terms, shells, batch)
    numbers = [None] * len(blocks) if z is None else z.split(ATOMS_AT_ONCE)
    energies = _in_blocks(model.read_out, zip(y.split(ATOMS_AT_ONCE), numbers, strict=True))
    if model.repulsion and z is not None:
        first, second = z[pairs]
        half = 0.5 * repulsion(distance, first, second, model.domain.geometry[0]).to(energies.dtype)
        energies = energies.index_add(0, pairs[0], half).index_add(0, pairs[1], half)
    return energies.index_select(0, order.argsort())


def _order_of_cells(pos: Tensor, batch: Tensor, side: float) -> Tensor:
    """Order of the atoms ``[num_atoms]`` by cluster and cubic cell, in which neighbours are close in memory."""
    cell = ((pos - pos.amin(0)) / side).long()
    key = batch
    for along, count in zip(cell.unbind(1), (cell.amax(0) + 1).tolist(), strict=True):
        key = key * count + along
    return key.argsort()


def _in_blocks(function: Callable[..., Tensor], blocks: Iterable[tuple]) -> Tensor:
    """Concatenated results of consecutive blocks of atoms; activations are recomputed for gradients."""
    if not torch.is_grad_enabled():
        return torch.cat([function(*block) for block in blocks])
    recomputed = partial(checkpoint, function, use_reentrant=False, preserve_rng_state=False)
    return torch.cat([recomputed(*block) for block in blocks])


def _descriptor(
    model: Any, z: Tensor | None, pos: Tensor, batch: Tensor, pairs: Tensor
) -> tuple[Callable[..., Tensor], list[tuple]]:
    """Function for the descriptors ``[num_atoms, in_channels]`` of a block, and its arguments for each block."""
    (source, target), _ = both_directions(pairs, by_source=False)
    degree = torch.bincount(target, minlength=batch.numel())
    place = torch.arange(target.numel(), device=target.device) - (degree.cumsum(0) - degree)[target]
    neighbors = target.new_full((batch.numel(), int(degree.max())), -1)
    neighbors[target, place] = source
    present, of_neighbors = neighbors >= 0, neighbors.clamp(min=0).flatten()
    difference = pos.index_select(0, of_neighbors).view(*neighbors.shape, 3) - pos[:, None]

    sizes = batch_to_ptr(batch).diff()
    parts = [present, difference, (sizes - 1).to(pos.dtype)[batch, None]]
    if elements := model.element_values(z, pos.dtype):
        channels, kinds = elements
        totals = channels.new_zeros(sizes.numel(), channels.size(1)).index_add(0, batch, channels)
        near = channels.index_select(0, of_neighbors).view(*neighbors.shape, -1)
        parts += [near, totals[batch] - channels, kinds]

    def describe(present: Tensor, difference: Tensor, num_others: Tensor, *elements: Tensor) -> Tensor:
        distance = torch.where(present, squared_norm(difference), 1.0).sqrt()
        block = (present, difference, distance, num_others, *elements)
        x = model.near_descriptor(*(part[None] for part in block)).squeeze(0)
        return x.to(model.inputs.mean.dtype)

    return describe, list(zip(*(part.split(ATOMS_AT_ONCE) for part in parts), strict=True))


def _shells(model: Any, pairs: Tensor, distance: Tensor, num_atoms: int) -> list[tuple[Neighbors, Tensor]]:
    """Neighbours in each shell but the outermost, and the weights of their pairs."""
    shells = []
    for shell, radius in enumerate(model.radii):
        inside = (distance < radius + model.width / 2).nonzero().squeeze(1)
        d = distance.index_select(0, inside)
        weight = 1.0 - soft_beyond(d, radius, model.width)
        if shell:
            weight = weight - 1.0 + soft_beyond(d, model.radii[shell - 1], model.width)
        shells.append((Neighbors.of(pairs.index_select(1, inside), num_atoms), weight))
    return shells


def _sums(terms: Tensor, shells: list[tuple[Neighbors, Tensor]], batch: Tensor) -> Tensor:
    """Sums over the neighbours ``[num_atoms, channels]`` of the terms ``[num_atoms, num_shells + 1, channels]``."""
    own, outermost, *inner = terms.unbind(1)
    totals = outermost.new_zeros(int(batch[-1]) + 1, outermost.size(1), dtype=torch.double)
    totals = totals.index_add(0, batch, outermost.double())
    y = own + totals.to(own.dtype).index_select(0, batch)
    for x, (neighbors, weight) in zip(inner, shells, strict=True):
        y = y + neighbor_sum(x.contiguous(), weight.to(x.dtype), neighbors)
    return y
