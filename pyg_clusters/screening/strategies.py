"""Ways of choosing, among the frames of one cluster size, those that are worth a DFT calculation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pyg_clusters.geometry import GALLIUM_RADII, shell_counts
from pyg_clusters.models.contract import HasFeatures
from pyg_clusters.structures.duplicates import SAME_STRUCTURE, representatives, structure_keys

FRAMES_AT_ONCE: int = 64
"""Frames whose features are computed together."""


@dataclass
class Selection:
    """Frames that were chosen.

    Attributes:
        places: Their places among the frames, in the order of the choice, ``[num_chosen]``.
        why: What each was chosen for.
    """

    places: np.ndarray
    why: list[str]


def lowest(energy: np.ndarray, top: int) -> Selection:
    """The lowest predicted energies (Modee et al. 2021, section 3.5, the first way).

    Args:
        energy: Predicted energies ``[num_frames]`` in eV; of equal ones the earlier comes first.
        top: How many.
    """
    places = np.argsort(energy, kind="stable")[:top]
    return Selection(places, [f"lowest {number}" for number in range(1, len(places) + 1)])


def lower_bounds(energy: np.ndarray, spread: np.ndarray, weight: float) -> np.ndarray:
    r"""Lower confidence bounds of energies, :math:`E - k s`: low where a low energy is predicted or not excluded.

    Auer, `"Using confidence bounds for exploitation-exploration trade-offs"
    <https://www.jmlr.org/papers/v3/auer02a.html>`_, J. Mach. Learn. Res. 2002, 3, 397; for energies that are to be low.

    Args:
        energy: Predicted energies ``[num_frames]`` in eV.
        spread: Their standard deviations ``[num_frames]`` in eV, of an ensemble say.
        weight: k; 0 is the energy alone, and the larger it is the more the unknown counts.

    Example:
        >>> lower_bounds(np.array([-10.0, -9.9]), np.array([0.01, 0.2]), weight=2.0)
        array([-10.02, -10.3 ])
    """
    return energy - weight * spread


def lowest_bounds(energy: np.ndarray, spread: np.ndarray, weight: float, top: int) -> Selection:
    """The lowest of :func:`lower_bounds`, for what to label next; of equal ones the earlier comes first.

    Args:
        energy: Predicted energies ``[num_frames]`` in eV.
        spread: Their standard deviations ``[num_frames]`` in eV.
        weight: How much the spread counts.
        top: How many.
    """
    bounds = lower_bounds(energy, spread, weight)
    places = np.argsort(bounds, kind="stable")[:top]
    why = [f"lower bound {n}: {bounds[p]:.3f} eV, the energy - {weight:g} spread" for n, p in enumerate(places, 1)]
    return Selection(places, why)


def lowest_of_bins(energy: np.ndarray, bins: int) -> Selection:
    """The lowest frame of each of equal-width bins of predicted energy (section 3.5, the way to distinct isomers).

    The bins reach from the lowest to the highest energy; each holds its lower edge, the last one both. Empty bins give
    none.

    Args:
        energy: Predicted energies ``[num_frames]`` in eV.
        bins: Number of bins.

    Example:
        >>> lowest_of_bins(np.array([-9.0, -8.9, -8.4, -8.2, -8.0]), 4).places
        array([0, 2, 3])
    """
    energy = np.asarray(energy, dtype=float)
    order = np.argsort(energy, kind="stable")
    if not len(order):
        return Selection(order, [])
    low, width = energy[order[0]], bin_width(energy, bins)
    number = np.minimum((energy[order] - low) / (width or 1.0), bins - 1).astype(int)
    numbers, first = np.unique(number, return_index=True)
    why = [f"lowest of bin {n + 1} from {low + n * width:.3f} to {low + (n + 1) * width:.3f} eV" for n in numbers]
    return Selection(order[first], why)


def bin_width(energy: np.ndarray, bins: int) -> float:
    """Width in eV of equal bins between the lowest and the highest energy."""
    return float(np.ptp(energy)) / bins


def lowest_of_cells(energy: np.ndarray, features: np.ndarray, bins: int) -> Selection:
    """The lowest frame of each cell of a grid over two features, of the mean descriptor say.

    Modee et al. 2021 (section 3.5) tried bins of the descriptor and rejected them: they are too broad.

    Args:
        energy: Predicted energies ``[num_frames]`` in eV.
        features: ``[num_frames, num_features]``; the first two make the grid (of :func:`mean_shell_counts`: with three
            shells the third follows from them).
        bins: Number of cells, about: its square root along each feature. Empty ones give none.
    """
    order = np.argsort(energy, kind="stable")
    if not len(order):
        return Selection(order, [])
    features = np.asarray(features, dtype=float)[order, :2]
    along = max(1, round(bins**0.5))
    low, width = features.min(axis=0), np.ptp(features, axis=0) / along
    cell = np.minimum((features - low) / np.where(width > 0, width, 1), along - 1).astype(int)
    cells, first = np.unique(cell, axis=0, return_index=True)
    keep = np.argsort(first)
    why = [f"lowest of the cell {'/'.join(map(str, numbers + 1))} of the descriptor" for numbers in cells[keep]]
    return Selection(order[first[keep]], why)


def mean_shell_counts(pos: np.ndarray, ptr: np.ndarray, radii: Sequence[float] = GALLIUM_RADII) -> np.ndarray:
    """Mean over the atoms of the topological descriptor, ``[num_frames, num_shells]``.

    Args:
        pos: Positions ``[num_atoms, 3]`` in Å.
        ptr: Offsets of the frames ``[num_frames + 1]``.
        radii: Shell radii in Å.
    """
    counts = shell_counts(torch.from_numpy(pos), torch.from_numpy(ptr), radii).numpy()
    return np.add.reduceat(counts, ptr[:-1], axis=0) / np.diff(ptr)[:, None]


def lowest_unique(
    energy: np.ndarray,
    z: np.ndarray,
    pos: np.ndarray,
    ptr: np.ndarray,
    top: int,
    tolerance: float = SAME_STRUCTURE,
) -> Selection:
    """The lowest predicted energies of distinct structures; of copies the lowest is taken.

    Args:
        energy: Predicted energies ``[num_frames]`` in eV.
        z: Atomic numbers ``[num_atoms]``.
        pos: Positions ``[num_atoms, 3]`` in Å.
        ptr: Offsets of the frames ``[num_frames + 1]``.
        top: How many.
        tolerance: In Å, see :func:`~pyg_clusters.structures.duplicates.representatives`.
    """
    copy_of = representatives(z, pos, ptr, energy=energy, tolerance=tolerance)
    copies = np.bincount(copy_of, minlength=len(energy))
    order = np.argsort(energy, kind="stable")
    places = order[copy_of[order] == order][:top]
    return Selection(places, [f"distinct structure {n}; frames like it {copies[p]}" for n, p in enumerate(places, 1)])


def farthest(energy: np.ndarray, features: np.ndarray, top: int) -> Selection:
    """The frame of the lowest energy, then always the one farthest in its features from all that were chosen.

    Args:
        energy: Predicted energies ``[num_frames]`` in eV.
        features: ``[num_frames, num_features]``, of :func:`cluster_features` say.
        top: How many.

    Example:
        >>> farthest(np.array([-3.0, -2.9, -2.8, -2.7]), np.array([[0.0], [0.1], [0.5], [2.0]]), 3).places
        array([0, 3, 2])
    """
    features = np.asarray(features, dtype=float)
    if not len(energy):
        return Selection(np.zeros(0, dtype=int), [])
    places, why = [int(np.argmin(energy))], ["lowest 1"]
    apart = np.linalg.norm(features - features[places[0]], axis=1)
    chosen = np.zeros(len(energy), dtype=bool)
    chosen[places] = True
    while len(places) < min(top, len(energy)):
        place = int(np.argmax(np.where(chosen, -np.inf, apart)))
        why.append(f"farthest from those before: {apart[place]:.3g}")
        places.append(place)
        chosen[place] = True
        apart = np.minimum(apart, np.linalg.norm(features - features[place], axis=1))
    return Selection(np.array(places), why)


@torch.no_grad()
def cluster_features(model: nn.Module, z: np.ndarray, pos: np.ndarray) -> np.ndarray:
    """What a model sees of clusters of one size.

    Of DART (and AlloyDART) the output of the last hidden layer, the mean over the atoms; of other models, which have
    no such layer in common, the sorted pair distances (:func:`~pyg_clusters.structures.duplicates.structure_keys`).

    Args:
        model: The model.
        z: Atomic numbers ``[num_frames, num_atoms]``.
        pos: Positions ``[num_frames, num_atoms, 3]`` in Å.

    Returns:
        ``[num_frames, num_features]``
    """
    pos = pos - pos.mean(axis=1, keepdims=True)
    if not isinstance(model, HasFeatures):
        return structure_keys(pos)
    weight = next(model.parameters())
    parts = [slice(start, start + FRAMES_AT_ONCE) for start in range(0, len(pos), FRAMES_AT_ONCE)]
    means = [_mean_features(model, torch.from_numpy(z[part]), torch.from_numpy(pos[part]).to(weight)) for part in parts]
    return torch.cat(means).cpu().numpy()


def _mean_features(model: HasFeatures, z: Tensor, pos: Tensor) -> Tensor:
    num_frames, size = z.shape
    batch = torch.arange(num_frames, device=pos.device).repeat_interleave(size)
    features = model.features(z.flatten().to(pos.device), pos.flatten(0, 1), batch)
    return features.view(num_frames, size, -1).mean(dim=1)
