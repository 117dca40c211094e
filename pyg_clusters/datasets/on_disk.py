"""Data sets larger than memory."""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from ase.data import atomic_numbers
from torch import Tensor
from torch_geometric.data import Data, OnDiskDataset

from pyg_clusters.datasets.label_reading import LabelReader, Labels, report_skipped
from pyg_clusters.datasets.store_index import StoreIndex
from pyg_clusters.datasets.validation import LabelArguments, check_energies_above_references
from pyg_clusters.errors import InputError
from pyg_clusters.frames import BadFrame, StoreReader
from pyg_clusters.frames.paths import is_store
from pyg_clusters.geometry import ptr_to_batch, sizes_to_ptr
from pyg_clusters.nn.output_scale import ReferenceFit, is_coarse, shift_of_references
from pyg_clusters.options import Fragments
from pyg_clusters.positions import centred

FORMAT_VERSION: int = 4
"""Increased whenever the content of an index or the reading of clusters changes."""

CLUSTERS_AT_ONCE: int = 4096


class OnDiskClusters(LabelArguments, OnDiskDataset):
    """Clusters and their labels read from a frame store on access, for sets that do not fit into memory.

    A cluster is the same as in :class:`ClusterDataset` of the same file. About 30 bytes per cluster are in memory,
    whatever its number of atoms: offset, group, target. Any number of processes can read the same file (ranks of a
    distributed training, workers of a ``DataLoader``), without a copy of the atoms.

    On first use, all frames are checked in one pass and an index is saved beside the store, so that the next start is
    quick. Write the store without compression (``pyg-clusters convert --uncompressed``): single clusters are read many
    times slower from a compressed one.

    Args:
        file (str or Path): The store (``.h5``; :func:`~pyg_clusters.frames.write_store` or ``pyg-clusters convert``).
        target (str): Name of the target in the store: of a value per cluster (an energy in eV), or per atom.
        root (str or Path, optional): Folder of the index; by default that of the store.
        per_atom (bool): Whether the target is a value per atom (a shielding in ppm).
        energy_unit (str): Unit of the target and of the energy in the forces in the store: a name of ``ase.units`` such
            as ``"Hartree"``. They are converted to eV.
        references (dict, optional): Energy in eV of an isolated atom by element symbol, whose sum over a cluster is
            subtracted from its energy, in double precision; ``"fit"``; or ``"isolated_atoms"``, the energies of the
            frames of one atom.
        group (str, optional): Name of a value per cluster that identifies its group of related clusters. By default
            the group is the file from which the cluster came into the store.
        keep (sequence of str or dict): Names of further values per cluster to keep, or a mapping from their names in
            the store to their names in the data.
        keep_atoms (sequence of str or dict): Names of further values per atom to keep, or a mapping as for ``keep``.
        forces (bool or str): Whether to read the forces, or their name in the store if it is not ``forces``.
        fragments (str): ``"refuse"`` a periodic frame that stays in several pieces, or ``"keep"`` the pieces at their
            nearest images.
        on_missing (str): ``"stop"`` raises at a frame whose label is not finite, ``"skip"`` leaves such frames out.
        on_bad (str): ``"stop"`` raises at a frame that cannot be used, ``"skip"`` leaves such frames out.
        transform (callable, optional): Transform applied at every access.

    Raises:
        InputError: If the file is not a frame store or is damaged, a frame cannot be used, or a label is missing (the
            message lists those found) or not finite.

    Attributes:
        references: Energy in eV of an atom of each element that is subtracted from the energies.
        skipped: Frames that were left out, with ``on_missing="skip"`` or ``on_bad="skip"``.

    Example:
        >>> import tempfile
        >>> from ase.cluster import Icosahedron
        >>> from pyg_clusters.frames import Frames, write_extxyz, write_store
        >>> folder = Path(tempfile.mkdtemp())
        >>> cluster = Icosahedron("Na", 2)
        >>> cluster.info["energy"] = -13.2
        >>> write_extxyz(folder / "sodium.extxyz", [cluster, cluster])
        >>> frames = Frames.open(folder / "sodium.extxyz", properties=["energy"])
        >>> number = write_store(folder / "sodium.h5", frames, compressed=False)
        >>> dataset = OnDiskClusters(folder / "sodium.h5", references={"Na": -1.0})
        >>> len(dataset), dataset[0].y
        (2, tensor([-0.2000]))
    """

    def __init__(
        self,
        file: str | Path,
        target: str = "energy",
        *,
        root: str | Path | None = None,
        per_atom: bool = False,
        energy_unit: str = "eV",
        references: Mapping[str, float] | Literal["fit", "isolated_atoms"] | None = None,
        group: str | None = None,
        keep: Sequence[str] | Mapping[str, str] = (),
        keep_atoms: Sequence[str] | Mapping[str, str] = (),
        forces: bool | str = False,
        fragments: Fragments = "refuse",
        on_missing: Literal["stop", "skip"] = "stop",
        on_bad: Literal["stop", "skip"] = "stop",
        transform: Callable | None = None,
    ):
        self.file = Path(file).expanduser().absolute()
        self.files = [self.file]
        arguments = (target, per_atom, energy_unit, references, group, keep, keep_atoms, forces)
        self.take_label_arguments(*arguments, fragments, on_missing, on_bad)
        if not is_store(self.file):
            raise InputError(f"{self.file}: not a frame store; create one with pyg-clusters convert --uncompressed")
        folder = self.file.parent if root is None else Path(root).expanduser().absolute()
        super().__init__(str(folder), transform, log=False)
        arrays = (*self.keep_atoms, *((self.forces_key,) if forces else ()))
        labels = Labels(target, per_atom, group, tuple(self.keep), arrays, fragments, self.energy_unit)
        reader = LabelReader(on_missing, on_bad, take_atoms=self._references == "isolated_atoms")
        index_file = folder / f"{self.file.stem}.{_hash_of(labels, reader)[:12]}.index.npz"
        self._index = StoreIndex.of(self.file, labels, reader, index_file)
        self.skipped = [BadFrame(str(self.file), number, reason) for number, reason in self._index.skipped]
        report_skipped(self.skipped)
        self._store = StoreReader(self.file)
        if not self._store.direct:
            warnings.warn(
                f"{self.file} is compressed: reading single clusters is slow; create a copy with pyg-clusters convert "
                "--uncompressed",
                stacklevel=2,
            )
        self._sizes = np.diff(self._store.ptr)[self._index.frames]
        self.references = self.find_references(self._index.elements, self._index.atoms, self._fitted)
        """Energy in eV of an atom of each element that is subtracted from the energies."""
        self._energy_dtype = torch.float32 if per_atom else self._needed_precision()

    @property
    def electronic_state(self) -> tuple[int, bool]:
        """Charge of all clusters in e, and whether one of them is in a state other than the lowest spin."""
        return self._index.electronic_state

    @property
    def group_names(self) -> list[str]:
        """Names of the groups by index, in the order of appearance."""
        return self._index.group_names

    @property
    def fingerprint(self) -> str:
        """Hash of the content of the file and of everything else that the clusters depend on."""
        references = self._references
        shaped_by = [self._index.checksum, self.target, self.per_atom, self.group_key, list(self.keep.items())]
        shaped_by += [self._index.frames.tolist() if self.skipped else None, self.forces and self.forces_key]
        shaped_by += [list(self.keep_atoms.items()), self.fragments, references, self.energy_unit, FORMAT_VERSION]
        return hashlib.sha256(json.dumps(shaped_by, sort_keys=True, default=float).encode()).hexdigest()

    @property
    def sizes(self) -> Tensor:
        """Number of atoms of each cluster, ``[num_graphs]`` (long)."""
        return torch.from_numpy(self._sizes[self._frames(slice(None))])

    @property
    def groups(self) -> Tensor:
        """Index of the group of each cluster, ``[num_graphs]`` (long)."""
        return torch.from_numpy(self._index.group[self._frames(slice(None))]).long()

    def len(self) -> int:
        """Number of usable clusters in the file."""
        return len(self._index.frames)

    def read(self, clusters: Sequence[int] | Tensor | slice, positions: bool = True) -> Data:
        """Read clusters as one batch, before any transform: ``z``, ``pos``, ``y``, ..., ``ptr`` and ``batch``.

        Args:
            clusters: Their indices in the data set, in any order.
            positions: Whether to read the positions and all other values per atom except the targets.

        Raises:
            InputError: If the file can no longer be read.
        """
        return self._batch(self._frames(clusters), positions)

    def blocks(self, clusters: Sequence[int] | Tensor, positions: bool = True) -> Iterator[Data]:
        """Read some thousand clusters at a time, in the given order, as by :meth:`read`."""
        for part in torch.as_tensor(clusters, dtype=torch.long).split(CLUSTERS_AT_ONCE):
            yield self.read(part, positions)

    def get(self, idx: int) -> Data:
        """Cluster at an index in the file, before any transform."""
        return self._separate([idx])[0]

    def multi_get(self, indices: Iterable[int] | Tensor | slice | range, batch_size: int | None = None) -> list[Data]:
        """Clusters at some indices in the file, read together and transformed."""
        if isinstance(indices, slice):
            indices = range(*indices.indices(self.len()))
        clusters = self._separate(torch.as_tensor(list(indices), dtype=torch.long).tolist())
        return clusters if self.transform is None else [self.transform(cluster) for cluster in clusters]

    def __getitems__(self, indices: list[int]) -> list[Data]:
        return self.multi_get(self._frames(indices).tolist())

    def _frames(self, clusters: Sequence[int] | Tensor | slice) -> np.ndarray:
        """Indices in the file of clusters of this data set, which may be a subset."""
        chosen = clusters if isinstance(clusters, slice) else np.asarray(clusters, dtype=np.int64)
        if self._indices is not None:
            return np.asarray(self._indices, dtype=np.int64)[chosen]
        return np.arange(self.len())[chosen] if isinstance(chosen, slice) else chosen

    def _separate(self, frames: Sequence[int]) -> list[Data]:
        batch = self._batch(np.asarray(frames, dtype=np.int64), True)
        sizes, values = batch.ptr.diff().tolist(), batch.to_dict()
        for key in ("ptr", "batch"):
            del values[key]
        of_atoms = {"z", "pos", "force", *self.keep_atoms.values(), *({"y"} if self.per_atom else ())}
        parts = {key: value.split(sizes if key in of_atoms else 1) for key, value in values.items()}
        return [Data(**dict(zip(parts, row, strict=True))) for row in zip(*parts.values(), strict=True)]

    def _batch(self, frames: np.ndarray, positions: bool) -> Data:
        sizes = torch.from_numpy(self._sizes[frames])
        ptr = sizes_to_ptr(sizes)
        data = Data(z=torch.from_numpy(self._rows("z", frames)).long())
        if positions:
            data.pos = torch.from_numpy(centred(self._rows("pos", frames), ptr.numpy())).float()
            if self.forces:
                force = self._rows(f"atom_properties/{self.forces_key}", frames) * self.energy_unit
                data.force = torch.from_numpy(force).float()
            for key, name in self.keep_atoms.items():
                data[name] = self._atoms(f"atom_properties/{key}", frames)
        data.idx = torch.from_numpy(frames)
        data.cluster_size = sizes
        data.group = torch.from_numpy(self._index.group[frames]).long()
        for key, values in self._index.kept.items():
            data[self.keep[key]] = torch.from_numpy(values[frames])
        data.y = self._targets(frames, data.z, ptr)
        data.ptr, data.batch = ptr, ptr_to_batch(ptr)
        return data

    def _atoms(self, name: str, frames: np.ndarray) -> Tensor:
        return torch.from_numpy(self._rows(name, frames)).float()

    def _rows(self, name: str, frames: np.ndarray) -> np.ndarray:
        return self._store.atoms(name, self._index.frames[frames])

    def _targets(self, frames: np.ndarray, z: Tensor, ptr: Tensor) -> Tensor:
        if self._index.target is None:
            return self._atoms(f"atom_properties/{self.target}", frames)
        target = torch.from_numpy(self._index.target[frames])
        numbered = {atomic_numbers[symbol]: energy for symbol, energy in self.references.items()}
        return (target - shift_of_references(z, ptr, numbered) if numbered else target).to(self._energy_dtype)

    def _needed_precision(self) -> torch.dtype:
        """Single precision for the targets, or double if single would round one of them."""
        largest = float(np.abs(np.asarray(self._index.target)).max()) if not self.references else 0.0
        self._energy_dtype = torch.double
        for frames, z, ptr in self._compositions() if self.references else ():
            energy = self._targets(frames, z, ptr)
            check_energies_above_references(energy, ptr.diff(), self.references)
            largest = max(largest, float(energy.abs().max()))
        return torch.double if is_coarse(largest) else torch.float32

    def _fitted(self) -> dict[int, float]:
        fit, target = ReferenceFit(), torch.as_tensor(self._index.target)
        for frames, z, ptr in self._compositions():
            fit.add(z, ptr, target[frames])
        return fit.solution()

    def _compositions(self) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
        """Indices, atomic numbers and offsets of some thousand clusters at a time."""
        for frames in np.array_split(np.arange(self.len()), -(-self.len() // CLUSTERS_AT_ONCE)):
            ptr = sizes_to_ptr(torch.from_numpy(self._sizes[frames]))
            yield frames, torch.from_numpy(self._rows("z", frames)).long(), ptr


def _hash_of(labels: Labels, reader: LabelReader) -> str:
    options = [reader.on_missing, reader.on_bad, reader.take_atoms]
    return hashlib.sha256(json.dumps([FORMAT_VERSION, astuple(labels), options]).encode()).hexdigest()
