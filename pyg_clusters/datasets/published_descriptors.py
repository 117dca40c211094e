"""Clusters without coordinates: the descriptors published with the code of DART."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Unpack

import numpy as np
import torch
from ase.data import atomic_numbers
from torch import Tensor
from torch_geometric.data import Data

from pyg_clusters.datasets.card import Processing, cache_folder
from pyg_clusters.datasets.cluster_dataset import ClusterDataset
from pyg_clusters.datasets.safe_npz import read_npz
from pyg_clusters.errors import InputError, one_line
from pyg_clusters.frames import BadFrame
from pyg_clusters.units import KCAL_PER_MOL

SHELLS: str = "JKL"


class PublishedDescriptors(ClusterDataset):
    r"""Clusters from the npz file of the published code of `DART <https://doi.org/10.1039/d1cp02956h>`_ (Modee et al.
    2021, section 2.2): shell counts and energies, **no coordinates**.

    The file has two arrays of objects. ``desc[b] = [tad_i, tad_j, tad_k, tad_l]`` are, for each atom of cluster b, its
    shell counts and the lists of the shell counts of its neighbours in the shells J, K and L; ``ener[b] = [energy]``
    is the binding energy in kcal/mol. No code in the file is executed (:mod:`pyg_clusters.datasets.safe_npz`).

    The file does not identify the neighbours. DART uses nothing but their shell counts (Eqs. 2 to 4), and an atom with
    these counts always exists in the cluster: each edge starts at the first such atom. DART gives the same energy as
    from the true pairs, and the graph can be batched, sliced and passed to any layer; but its edges are not pairs of
    atoms, and several of them may join the same two.

    A cluster has ``z [num_atoms]``, ``x [num_atoms, 3]`` (counts in the shells J, K, L), ``edge_index [2, num_edges]``
    (source j, target i), ``edge_type [num_edges]``, ``y [1]`` (binding energy in eV), ``idx [1]`` (its index in the
    file), ``cluster_size [1]`` and ``group [1]`` (a group of its own); ``pos`` is ``None``. An edge takes two bytes in
    memory and is expanded at every access.

    Args:
        file (str or Path): The npz file.
        root (str or Path, optional): Folder for the processed file, by default ``pyg_clusters/published_descriptors``
            in the user's cache (``$XDG_CACHE_HOME`` or ``~/.cache``).
        element (str): Symbol of the element, which the file does not name.
        on_bad (str): ``"stop"`` raises at a cluster whose lists contradict its counts, ``"skip"`` leaves such clusters
            out with a warning.
        kwargs: ``transform``, ``pre_transform``, ``pre_filter`` and ``force_reload`` of
            :class:`~pyg_clusters.datasets.ClusterDataset`. Only ``transform`` sees the edges.

    Raises:
        InputError: If the file is missing, damaged, of another layout, or holds anything but arrays, numbers and plain
            containers; or a cluster is inconsistent.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from pyg_clusters.models import DART
        >>> trimer = [[[1, 1, 0], [2, 0, 0], [1, 1, 0]], [[[2, 0, 0]], [[1, 1, 0], [1, 1, 0]], [[2, 0, 0]]],
        ...           [[[1, 1, 0]], [], [[1, 1, 0]]], [[], [], []]]
        >>> desc, ener = np.empty(1, dtype=object), np.empty(1, dtype=object)
        >>> desc[0], ener[0] = trimer, [-110.0]
        >>> folder = tempfile.mkdtemp()
        >>> np.savez(f"{folder}/trimer.npz", desc=desc, ener=ener)
        >>> data = PublishedDescriptors(f"{folder}/trimer.npz", root=folder)[0]
        >>> data.edge_index.tolist(), data.edge_type.tolist()
        ([[1, 0, 0, 0, 1, 0], [0, 0, 1, 1, 2, 2]], [0, 1, 0, 0, 0, 1])
        >>> batch = torch.zeros(3, dtype=torch.long)
        >>> DART()(data.z, data.pos, batch, x=data.x, edge_index=data.edge_index, edge_type=data.edge_type).shape
        torch.Size([1])
    """

    def __init__(
        self,
        file: str | Path,
        root: str | Path | None = None,
        *,
        element: str = "Ga",
        on_bad: Literal["stop", "skip"] = "stop",
        **kwargs: Unpack[Processing],
    ):
        if element not in atomic_numbers or not atomic_numbers[element]:
            raise InputError(f"{element!r} is not an element symbol")
        self.element = element
        super().__init__(
            root if root is not None else cache_folder() / "published_descriptors",
            file,
            target="ener",
            on_bad=on_bad,
            **kwargs,
        )

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps([super().fingerprint, self.element]).encode()).hexdigest()

    def get(self, idx: int) -> Data:
        data = super().get(idx)
        data.edge_index, data.edge_type = _edges(data.x, data.source_index)
        del data.source_index
        return data

    def _read(self) -> tuple[list[Data], list[str], dict[str, float]]:
        file = self.files[0]
        content = read_npz(file, ["desc", "ener"])
        desc = content["desc"]
        energies = _energies(content["ener"], file)
        if desc.ndim < 1 or len(desc) != len(energies) or not len(desc):
            raise InputError(f"{file}: desc is of shape {list(desc.shape)}, but ener has {len(energies)} energies")
        clusters: list[Data] = []
        for number, (parts, energy) in enumerate(zip(desc, energies, strict=True)):
            try:
                x, source = _graph(parts)
            except (TypeError, ValueError) as error:
                self._reader.note([BadFrame(str(file), number, one_line(error))])
            else:
                clusters.append(self._cluster(x, source, energy, number, group=len(clusters)))
        self._reader.check([file], len(clusters))
        return clusters, [f"{file.name} {int(cluster.idx)}" for cluster in clusters], {}

    def _cluster(self, x: np.ndarray, source: np.ndarray, energy: float, number: int, group: int) -> Data:
        return Data(
            z=torch.full((len(x),), atomic_numbers[self.element]),
            x=torch.from_numpy(x).float(),
            source_index=torch.from_numpy(source.astype(np.int16)),
            y=torch.tensor([energy / KCAL_PER_MOL], dtype=torch.float),
            idx=torch.tensor([number]),
            cluster_size=torch.tensor([len(x)]),
            group=torch.tensor([group]),
        )


def _edges(x: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
    """Edges from their sources, which are ordered by target, then by shell, as many of each as the counts."""
    counts = x.long()
    target = torch.repeat_interleave(counts.sum(dim=1))
    edge_type = torch.repeat_interleave(torch.arange(counts.size(1)).repeat(counts.size(0)), counts.flatten())
    return torch.stack([source.long(), target]), edge_type


def _energies(ener: np.ndarray, file: Path) -> np.ndarray:
    """Energies in kcal/mol, ``[num_graphs]`` in double precision."""
    try:
        energies = np.array([np.asarray(entry, dtype=np.float64).item() for entry in ener])
    except (TypeError, ValueError) as error:
        raise InputError(f"{file}: ener does not hold one energy for each cluster") from error
    wrong = np.flatnonzero(~np.isfinite(energies))
    if wrong.size:
        raise InputError(f"{file}, frame {wrong[0]}: the energy is {energies[wrong[0]]}; remove the cluster")
    return energies


def _graph(parts: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """Shell counts ``[num_atoms, 3]`` and the source of each edge, ordered by target, then by shell.

    Raises:
        ValueError: If the parts have another layout, or contradict each other.
    """
    if len(parts) != len(SHELLS) + 1:
        raise ValueError(f"it has {len(parts)} parts instead of 4 (the atoms and their neighbours in J, K, L)")
    x = _rows(parts[0])
    if len(x) < 2:
        raise ValueError(f"it has {len(x)} atom(s), a cluster has at least two")
    lists = [[_rows(entries) for entries in part] for part in parts[1:]]
    for shell, of_atoms in zip(SHELLS, lists, strict=True):
        if len(of_atoms) != len(x):
            raise ValueError(f"it has {len(x)} atoms, but lists of {shell} neighbours for {len(of_atoms)}")
    for atom, of_shells in enumerate(zip(*lists, strict=True)):
        found = [len(rows) for rows in of_shells]
        if found != x[atom].tolist():
            raise ValueError(f"atom {atom} counts {x[atom].tolist()} neighbours in J, K, L, but {found} are listed")
    neighbors = np.concatenate([rows for of_shells in zip(*lists, strict=True) for rows in of_shells])
    return x, _first_atoms(x, neighbors)


def _rows(entries: Sequence) -> np.ndarray:
    """Shell counts ``[num_entries, 3]`` from any nesting of lists and arrays, without the zeros of padding."""
    if not len(entries):
        return np.zeros((0, 3), dtype=np.int64)
    rows = entries.tolist() if isinstance(entries, np.ndarray) else list(entries)  # NumPy refuses arrays of objects
    numbers = np.array(rows, dtype=np.float64).reshape(-1, 3)
    counts = numbers.round().astype(np.int64)
    if (counts != numbers).any() or (counts < 0).any():
        raise ValueError(f"{numbers[(counts != numbers).any(axis=1) | (counts < 0).any(axis=1)][0]} are no counts")
    return counts[counts.any(axis=1)]


def _first_atoms(x: np.ndarray, neighbors: np.ndarray) -> np.ndarray:
    """Index of the first atom with the counts of each neighbour, ``[num_neighbors]``."""
    base = max(int(x.max()), int(neighbors.max(initial=0))) + 1
    powers = base ** np.arange(x.shape[1])
    keys, first = np.unique(x @ powers, return_index=True)
    wanted = neighbors @ powers
    index = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    strange = np.flatnonzero(keys[index] != wanted)
    if strange.size:
        raise ValueError(f"a neighbour counts {neighbors[strange[0]].tolist()} in J, K, L, but no atom does")
    return first[index]
