"""Range of a training set, and flags for frames outside it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations_with_replacement

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor

from pyg_clusters.geometry import (
    check_radii,
    masks_to_counts,
    ptr_to_batch,
    shell_masks,
    squared_distance,
    squared_distances,
)
from pyg_clusters.models.training_domain import TrainingDomain
from pyg_clusters.nn.output_scale import MAX_ATOMIC_NUMBER, element_counts
from pyg_clusters.pairs import COVALENT_RADII, NEIGHBORS, is_large, near_pairs, nearest_distances, shell_counts
from pyg_clusters.terminal import count_of

FRAMES_AT_ONCE: int = 64
PAIRS_AT_ONCE: int = 1 << 20
BASE: int = 1 << 15  # base of the integer that encodes a row of counts; larger than any count but the last
ONE_ATOM: float = 1 + 1e-4  # atoms of an element by which a cluster may be beyond the fractions of the training set
SAME: float = 1e-4  # tolerance of distances in Å, for single precision
COMMON: float = 0.99  # fraction of held-out clusters that should not be flagged for their counts


@dataclass
class OutOfRangeFlagger:
    """Range of compositions, sizes, distances and shell counts of a training set, which flags frames outside it."""

    atomic_numbers: list[int]  #: Atomic numbers of the elements.
    sizes: list[int]  #: Cluster sizes in the training set; with :attr:`between`, only the smallest and the largest.
    between: bool = False  #: Whether all sizes between the smallest and the largest are within the range.
    shortest: float = 0.0  #: Smallest interatomic distance in Å.
    farthest: float = float("inf")  #: Largest nearest-neighbour distance of an atom in Å.
    radii: tuple[float, ...] = ()  #: Shell radii of the counts in Å, if the model has any.
    rows: Sequence[int] = ()  #: Distinct rows of shell counts, encoded as integers, sorted.
    #: Fraction of atoms with rows that do not occur in training, above which a cluster is flagged.
    new_rows: float = 1.0
    #: Largest mean number of neighbours of an atom within the first radius in any cluster, if it is checked.
    densest: float | None = None
    #: Smallest and largest fraction of the atoms of a cluster of each of :attr:`atomic_numbers`; empty if unknown. A
    #: cluster may have one atom of an element more or less, as sizes differ.
    fractions: Sequence[Sequence[float]] = ()
    #: Smallest distance in Å of each pair of elements of an alloy, by symbols (``"Cu-Au"``), if it is checked; for
    #: elements that were never neighbours, that of the most distant neighbours.
    closest: Mapping[str, float] = field(default_factory=dict)
    #: :attr:`farthest` of the atoms of each element of an alloy, by symbol, if it is checked.
    farthest_of: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self):
        self.radii = tuple(self.radii)  # a list in a file

    @classmethod
    def of_domain(cls, domain: TrainingDomain) -> "OutOfRangeFlagger":
        """Create the range from the elements, their fractions, and the smallest and largest size stored in a model."""
        return cls(domain.atomic_numbers, list(domain.size_range), between=True, fractions=domain.fraction_ranges)

    @classmethod
    def fit_blocks(
        cls, blocks: Iterable[tuple[Tensor, Tensor, Tensor]], radii: Sequence[float] = (), density: bool = False
    ) -> "OutOfRangeFlagger":
        """Determine the range of a training set from blocks, one in memory at a time.

        Args:
            blocks: Atomic numbers ``[num_atoms]``, positions ``[num_atoms, 3]`` in Å and offsets of the clusters
                ``[num_graphs + 1]`` of each block.
            radii: Shell radii of the counts of the model in Å.
            density: Whether to determine :attr:`densest`, for models whose errors are large in denser clusters.
        """
        radii = check_radii(radii) if radii else ()
        shortest, densest = float("inf"), 0.0
        farthest = torch.zeros(MAX_ATOMIC_NUMBER + 1)
        sizes, rows = (torch.zeros(0, dtype=torch.long) for _ in range(2))
        domain = TrainingDomain()
        for z, pos, ptr in blocks:
            domain.add(z, ptr, pos)
            new_rows = [rows]
            for _, atoms, near, part in _geometry_by_size(pos, ptr, radii):
                new_rows.append(part.flatten() if radii else rows)
                densest = max(densest, float(_mean_neighbors(part).max()) if density else 0.0)
                shortest = min(shortest, float(near.min()))
                farthest.scatter_reduce_(0, z[atoms].flatten(), near.flatten(), "amax")
            rows = torch.unique(torch.cat(new_rows))
            sizes = torch.unique(torch.cat([sizes, ptr.diff()]))
        return cls(
            atomic_numbers=domain.atomic_numbers,
            sizes=sizes.tolist(),
            fractions=domain.fraction_ranges,
            shortest=shortest,
            farthest=float(farthest.max()),
            radii=radii,
            rows=rows.tolist(),
            densest=densest if radii and density else None,
            closest=_closest_in_angstrom(domain),
            farthest_of={chemical_symbols[number]: float(farthest[number]) for number in domain.atomic_numbers}
            if len(domain.atomic_numbers) > 1
            else {},
        )

    def allow_blocks(self, blocks: Iterable[tuple[Tensor, Tensor, Tensor]]):
        """Set :attr:`new_rows` from held-out clusters, given as for :meth:`fit_blocks`."""
        parts = []
        for _, pos, ptr in blocks:
            rows = [(frames, part) for frames, *_, part in _geometry_by_size(pos, ptr, self.radii)]
            parts.append(self._new_shares(rows, ptr.numel() - 1))
        shares = np.concatenate(parts)
        self.new_rows = float(np.quantile(shares, COMMON, method="higher")) if len(shares) else 1.0

    def flags(self, z: Tensor | np.ndarray, pos: Tensor | np.ndarray, ptr: Tensor | np.ndarray) -> np.ndarray:
        """Return the reasons why each frame is outside the range, ``[num_frames]``; empty strings for frames inside.

        Frames are given as flat tensors or arrays, as for :meth:`fit_blocks`.
        """
        z, pos, ptr = (torch.from_numpy(np.ascontiguousarray(part)) for part in (z, pos, ptr))
        reasons: list[list[str]] = [[] for _ in range(ptr.numel() - 1)]
        counts = element_counts(z, ptr)
        self._flag_elements(reasons, counts)
        if self.fractions:
            self._flag_fractions(reasons, counts[:, self.atomic_numbers], ptr.diff())
        self._flag_sizes(reasons, ptr)
        if self.radii or self.shortest or self.farthest < float("inf"):
            self._flag_geometry(reasons, z, pos, ptr)
        if self.closest:
            self._flag_pairs(reasons, z, pos, ptr)
        return np.array(["; ".join(reason) for reason in reasons], dtype=object)

    def _flag_elements(self, reasons: list[list[str]], counts: Tensor):
        known = torch.isin(torch.arange(counts.size(1)), torch.tensor(self.atomic_numbers))
        for frame, number in ((counts > 0) & ~known).nonzero().tolist():
            reasons[frame].append(f"{chemical_symbols[number]} not seen")

    def _flag_fractions(self, reasons: list[list[str]], counts: Tensor, sizes: Tensor):
        low, high = torch.tensor(self.fractions).T
        above = counts - high * sizes[:, None]  # atoms more than the largest fraction
        below = low * sizes[:, None] - counts
        beyond = (torch.maximum(above, below).amax(1) > ONE_ATOM) & (counts.sum(1) == sizes)  # of known elements only
        for frame in beyond.nonzero().flatten().tolist():
            more = bool(above[frame].max() > ONE_ATOM)
            column = int((above if more else below)[frame].argmax())
            word, limit = ("above", high[column]) if more else ("below", low[column])
            percent = 100 * counts[frame, column] / sizes[frame]
            symbol = chemical_symbols[self.atomic_numbers[column]]
            reasons[frame].append(f"{symbol} {percent:.0f} % of the atoms, {word} {100 * limit:.0f} %")

    def _flag_sizes(self, reasons: list[list[str]], ptr: Tensor):
        low, high, seen = min(self.sizes), max(self.sizes), set(self.sizes)
        for frame, size in enumerate(ptr.diff().tolist()):
            if not low <= size <= high:
                reasons[frame].append(f"size {size} outside {low} to {high}")
            elif not self.between and size not in seen:
                reasons[frame].append(f"size {size} not seen")

    def _flag_geometry(self, reasons: list[list[str]], z: Tensor, pos: Tensor, ptr: Tensor):
        rows: list[tuple[Tensor, Tensor]] = []
        limits = torch.full((MAX_ATOMIC_NUMBER + 1,), self.farthest)
        for symbol, farthest in self.farthest_of.items():
            limits[atomic_numbers[symbol]] = farthest
        for frames, atoms, near, part in _geometry_by_size(pos, ptr, self.radii):
            if self.radii:
                rows.append((frames, part))
            beyond, worst = (near - limits[z[atoms]]).max(dim=1)
            for frame, short in zip(frames.tolist(), near.amin(1).tolist(), strict=True):
                if not self.closest and short < self.shortest - SAME:
                    reasons[frame].append(f"distance {short:.2f} Å below {self.shortest:.2f}")
            for index in (beyond > SAME).nonzero().flatten().tolist():
                number, far = int(z[atoms[index, worst[index]]]), float(near[index, worst[index]])
                atom = f"{chemical_symbols[number]} atom" if self.farthest_of else "atom"
                limit = float(limits[number])
                reasons[int(frames[index])].append(f"{atom} {far:.2f} Å from its nearest neighbour, above {limit:.2f}")
            if self.densest is not None:
                for frame, mean in zip(frames.tolist(), _mean_neighbors(part).tolist(), strict=True):
                    if mean > self.densest + SAME:
                        within = f"neighbours within {self.radii[0]:g} Å"
                        reasons[frame].append(f"{mean:.1f} {within} on average, above {self.densest:.1f}")
        shares = self._new_shares(rows, len(reasons))
        for frame in np.flatnonzero(shares > self.new_rows):
            reasons[frame].append(f"counts of {100 * shares[frame]:.0f} % of the atoms not seen")

    def _flag_pairs(self, reasons: list[list[str]], z: Tensor, pos: Tensor, ptr: Tensor):
        limits = torch.full((MAX_ATOMIC_NUMBER + 1, MAX_ATOMIC_NUMBER + 1), self.shortest, dtype=torch.double)
        for symbols, shortest in self.closest.items():
            first, second = (atomic_numbers[symbol] for symbol in symbols.split("-"))
            limits[first, second] = limits[second, first] = shortest
        pos = pos.double()
        pairs = near_pairs(pos, ptr_to_batch(ptr), float(limits.max()))
        elements, frames = z[pairs].sort(dim=0).values, ptr_to_batch(ptr)[pairs[0]]
        limit = limits[elements[0], elements[1]]
        beyond = squared_distance(pos[pairs[0]], pos[pairs[1]]).sqrt() - limit
        flagged = set()
        for pair in beyond.argsort().tolist():
            if beyond[pair] >= -SAME:
                break
            if (frame := int(frames[pair])) not in flagged:
                flagged.add(frame)
                symbols = "-".join(chemical_symbols[number] for number in elements[:, pair].tolist())
                short = float(limit[pair] + beyond[pair])
                reasons[frame].append(f"{symbols} distance {short:.2f} Å below {float(limit[pair]):.2f}")

    def _new_shares(self, rows: Sequence[tuple[Tensor, Tensor]], num_frames: int) -> np.ndarray:
        """Fraction of the atoms of each frame whose row of counts does not occur in training, ``[num_frames]``.

        ``rows`` contains, for each size, the indices of the frames and the rows of their atoms ``[num_frames, size]``.
        """
        shares = np.zeros(num_frames)
        if not rows:
            return shares
        new = np.isin(np.concatenate([part.flatten() for _, part in rows]), self.rows, invert=True)
        start = 0
        for frames, part in rows:
            own, start = new[start : start + part.numel()], start + part.numel()
            shares[frames.numpy()] = own.reshape(part.shape).mean(1)
        return shares


def _closest_in_angstrom(domain: TrainingDomain) -> dict[str, float]:
    """Smallest distance in Å of each pair of elements; empty for a single element."""
    closest = {}
    for pair in combinations_with_replacement(domain.atomic_numbers, 2):
        ratio = float(domain.closest[pair]) or NEIGHBORS
        closest["-".join(chemical_symbols[number] for number in pair)] = ratio * float(COVALENT_RADII[list(pair)].sum())
    return closest if len(domain.atomic_numbers) > 1 else {}


def _mean_neighbors(rows: Tensor) -> Tensor:
    """Mean number of neighbours in the first shell, from encoded rows ``[num_frames, size]``, ``[num_frames]``."""
    return (rows % BASE).double().mean(1)


def text_of_flags(num_flagged: int, num_frames: int) -> str:
    """Summarise the number of frames outside the range of the training set.

    Example:
        >>> text_of_flags(982, 1000)
        '982 of 1,000 frames are unlike the training set'
    """
    are = "is" if num_flagged == 1 else "are"
    return f"{num_flagged:,} of {count_of(num_frames, 'frame')} {are} unlike the training set"


def _geometry_by_size(
    pos: Tensor, ptr: Tensor, radii: Sequence[float]
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Compute geometric measures of frames, one size at a time, in single precision.

    Yields:
        Indices of the frames ``[num_frames]`` and of their atoms ``[num_frames, size]``, nearest-neighbour distances of
        the atoms in Å, and encoded rows of counts of the same shape (meaningless if there are no radii).
    """
    sizes = ptr.diff()
    for size in torch.unique(sizes).tolist():
        at_once = 1 if is_large(size) else max(1, min(FRAMES_AT_ONCE, PAIRS_AT_ONCE // size**2))
        for frames in (sizes == size).nonzero().flatten().split(at_once):
            atoms = ptr[frames][:, None] + torch.arange(size)
            padded = pos[atoms]
            padded = (padded - padded.mean(dim=1, keepdim=True)).float()
            if is_large(size):
                near = nearest_distances(padded[0])[None]
                counts = shell_counts(padded[0], torch.tensor([0, size]), radii)[None] if radii else near[..., None]
            else:
                squared = squared_distances(padded)
                counts = masks_to_counts(shell_masks(squared, radii), size - 1)
                squared.diagonal(dim1=1, dim2=2).fill_(float("inf"))
                near = squared.amin(2).sqrt_()
            inner = counts[..., :4].long()  # of at most four shells, which fit into an integer and distinguish clusters
            yield frames, atoms, near, (inner * BASE ** torch.arange(inner.size(-1))).sum(-1)
