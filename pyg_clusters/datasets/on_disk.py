"""Data sets larger than memory, with an index of their labels."""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, OnDiskDataset

from pyg_clusters.composition import composition_names
from pyg_clusters.datasets.label_arguments import LabelArguments
from pyg_clusters.datasets.label_reading import LabelReader, Labels, report_skipped
from pyg_clusters.errors import InputError
from pyg_clusters.files import atomic_write, file_fingerprint, waiting_lock
from pyg_clusters.frames import BadFrame, StoreReader
from pyg_clusters.frames.checks import group_labels, numbers, unrounded
from pyg_clusters.frames.paths import is_store
from pyg_clusters.geometry import ptr_to_batch, sizes_to_ptr
from pyg_clusters.metrics import mixed_zeros
from pyg_clusters.nn.output_scale import ReferenceFit, is_coarse
from pyg_clusters.options import Fragments
from pyg_clusters.positions import centred

FORMAT_VERSION: int = 6  # version of the index; increase it whenever its content or the reading of clusters changes

CLUSTERS_AT_ONCE: int = 4096


@dataclass(frozen=True)
class StoreIndex:
    """Labels of the usable frames of a store, about 30 bytes per frame."""

    state: list[int]  #: Size, inode and modification times of the store.
    checksum: str  #: SHA-256 of the store.
    frames: Tensor  #: Indices of the usable frames in the store ``[num_frames]``.
    elements: list[int]  #: Atomic numbers in the store, ascending.
    target: Tensor | None  #: Target of each frame in double precision ``[num_frames]``; ``None`` if it is per atom.
    group: Tensor  #: Index of the group of each frame ``[num_frames]``.
    group_names: list[str]  #: Names of the groups by index, in the order of appearance.
    kept: dict[str, Tensor]  #: Additional values ``[num_frames]`` each.
    double: list[str]  #: Names of values per atom that single precision would round noticeably.
    skipped: list[tuple[int, str]]  #: Index of each skipped frame, and the reason.
    atoms: dict[str, float]  #: Energy of an isolated atom by element symbol, from frames of one atom.
    #: Charge of all frames in e, and whether one of them is in a state other than the lowest spin.
    electronic_state: tuple[int, bool]

    @classmethod
    def of(cls, store: Path, labels: Labels, reader: LabelReader, file: Path) -> "StoreIndex":
        """Load the index from ``file``, or build it if it is missing or corrupted, or if the store has changed.

        The store is hashed again only if its modification times have changed.
        """
        index = cls._load(file)
        if index is not None and index.state == _state_of(store):
            return index
        with waiting_lock(file):  # other processes wait for the first one and use its result
            index, state = cls._load(file), _state_of(store)
            if index is None or index.state != state:
                if index is None or index.checksum != file_fingerprint(store):
                    index = cls._build(store, labels, reader)
                index = replace(index, state=state)
                with atomic_write(file) as temporary, open(temporary, "wb") as stream:
                    torch.save(vars(index), stream)
        return index

    @classmethod
    def _load(cls, file: Path) -> "StoreIndex | None":
        try:
            return cls(**torch.load(file, weights_only=True))
        except Exception:  # missing or corrupted
            return None

    @classmethod
    def _build(cls, store: Path, labels: Labels, reader: LabelReader) -> "StoreIndex":
        elements: set[int] = set()
        number_of_name: dict[str, int] = {}
        columns: dict[str, list[np.ndarray]] = {name: [] for name in ("frames", "target", "group")}
        compositions: dict[str, int] = {}
        kinds, sizes = [], []
        kept: dict[str, list[np.ndarray]] = {key: [] for key in labels.keep}
        double: set[str] = set()
        for block in reader.blocks(store, labels):
            if block.joined is not None and block.joined.any():
                frame = block.number[block.joined.argmax()]
                raise InputError(f"{store}, frame {frame}: is cut by the faces of its cell; convert the store again")
            columns["frames"].append(block.number)
            elements.update(np.unique(block.z).tolist())
            if not labels.per_atom:
                columns["target"].append(numbers(block, labels.target))
                kinds.append(_indices(composition_names(block.z, block.ptr), compositions))
                sizes.append(block.sizes.astype(np.int32))
            for key in labels.keep:
                kept[key].append(numbers(block, key))
            double |= {key for key, values in block.atom_properties.items() if unrounded([values]).dtype == np.float64}
            groups = block.origins[0].astype(str) if labels.group is None else group_labels(block, labels.group)
            columns["group"].append(_indices(groups, number_of_name))
        reader.check([store], len(columns["frames"]))
        if kinds:
            energy, size, kind = map(np.concatenate, (columns["target"], sizes, kinds))
            if mixed := mixed_zeros(energy, size, kind, [*compositions]):
                warnings.warn(f"{store}: {mixed}", stacklevel=2)
        whole = {name: torch.from_numpy(np.concatenate(parts)) if parts else None for name, parts in columns.items()}
        return cls(
            state=[],
            checksum=file_fingerprint(store),
            **whole,  # type: ignore[arg-type]
            elements=sorted(elements),
            group_names=list(number_of_name),
            kept={key: torch.from_numpy(unrounded(values)) for key, values in kept.items()},
            double=sorted(double),
            skipped=[(bad.number, bad.reason) for bad in reader.skipped],
            atoms={symbol: energy for symbol, (energy, _) in reader.atoms.items()},
            electronic_state=reader.state or (0, False),
        )


def _indices(names: np.ndarray, known: dict[str, int]) -> np.ndarray:
    """Index of each name ``[num_frames]`` in a table of known names, to which new ones are added."""
    return np.array([known.setdefault(name, len(known)) for name in names.tolist()], dtype=np.int32)


def _state_of(store: Path) -> list[int]:
    """Size, inode, modification and change time of a file; the change time cannot be reset by programs."""
    if not store.exists():
        return []
    found = store.stat()
    return [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]


class OnDiskClusters(LabelArguments, OnDiskDataset):
    """Data set of clusters and labels that reads a frame store on access, for data that do not fit into memory.

    Clusters are the same as in a :class:`ClusterDataset` of the same file. Memory usage is about 30 bytes per cluster,
    independent of its number of atoms. Several processes (ranks of a distributed training run, workers of a
    ``DataLoader``) can read the same file without copying it.

    On first use, all frames are checked in one pass, and an index is saved next to the store for later use. Write the
    store without compression (``pyg-clusters convert --uncompressed``); reading single clusters from a compressed store
    is many times slower.

    The other arguments are those of :class:`ClusterDataset`.

    Args:
        file (str or Path): Frame store (``.h5``), written by :func:`~pyg_clusters.frames.write_store` or
            ``pyg-clusters convert``.
        target (str): Name of the target in the store, a value per cluster (an energy in eV) or per atom.
        root (str or Path, optional): Folder of the index; by default the folder of the store.
        group (str, optional): Name of a value per cluster that identifies its group; by default the file from which the
            cluster was converted.

    Raises:
        InputError: If the file is not a frame store, or a frame or a label cannot be used.

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
        labels, reader = self.labels_of_files(target, self.forces), self.label_reader()
        options = [FORMAT_VERSION, astuple(labels), on_missing, on_bad, reader.take_atoms]
        name = hashlib.sha256(json.dumps(options).encode()).hexdigest()[:12]
        index_file = folder / f"{self.file.stem}.{name}.index.pt"
        self._index = StoreIndex.of(self.file, labels, reader, index_file)
        self.skipped = [BadFrame(str(self.file), number, reason) for number, reason in self._index.skipped]
        """Skipped frames, with ``on_missing="skip"`` or ``on_bad="skip"``."""
        report_skipped(self.skipped)
        self._store = StoreReader(self.file)
        if not self._store.direct:
            warnings.warn(
                f"{self.file} is compressed: reading single clusters is slow; create a copy with pyg-clusters convert "
                "--uncompressed",
                stacklevel=2,
            )
        self._sizes = np.diff(self._store.ptr)[self._index.frames.numpy()]
        self.references = self.find_references(self._index.elements, self._index.atoms, self._fitted)
        """Reference energy of each element in eV per atom, which is subtracted from the energies."""
        self._energy_dtype = self._needed_precision()

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
        """Hash of the content of the file and of all arguments that determine the clusters."""
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
        return self._index.group[self._frames(slice(None))].long()

    def len(self) -> int:
        """Number of usable clusters in the file."""
        return len(self._index.frames)

    def read(self, clusters: Sequence[int] | Tensor | slice, positions: bool = True) -> Data:
        """Read clusters as one batch, before any transform: ``z``, ``pos``, ``y``, ..., ``ptr`` and ``batch``.

        Args:
            clusters: Indices in the data set, in any order.
            positions: Whether to read the positions and other values per atom; the targets are always read.
        """
        return self._batch(self._frames(clusters), positions)

    def blocks(self, clusters: Sequence[int] | Tensor, positions: bool = True) -> Iterator[Data]:
        """Read clusters in batches of a few thousand, in the given order, see :meth:`read`."""
        for part in torch.as_tensor(clusters, dtype=torch.long).split(CLUSTERS_AT_ONCE):
            yield self.read(part, positions)

    def get(self, idx: int) -> Data:
        """Read the cluster with this index among the usable frames, before any transform."""
        return self._separate([idx])[0]

    def multi_get(self, indices: Iterable[int] | Tensor | slice | range, batch_size: int | None = None) -> list[Data]:
        """Read several clusters together, and transform them."""
        indices = range(self.len())[indices] if isinstance(indices, slice) else indices
        clusters = self._separate(torch.as_tensor(list(indices), dtype=torch.long).tolist())
        return clusters if self.transform is None else [self.transform(cluster) for cluster in clusters]

    def __getitems__(self, indices: list[int]) -> list[Data]:
        return self.multi_get(self._frames(indices).tolist())

    def _frames(self, clusters: Sequence[int] | Tensor | slice) -> np.ndarray:
        """Indices among the usable frames of clusters of this data set, which may be a subset."""
        chosen = clusters if isinstance(clusters, slice) else np.asarray(clusters, dtype=np.int64)
        if self._indices is not None:
            return np.asarray(self._indices, dtype=np.int64)[chosen]
        return np.arange(self.len())[chosen] if isinstance(chosen, slice) else chosen

    def _separate(self, frames: Sequence[int]) -> list[Data]:
        batch = self._batch(np.asarray(frames, dtype=np.int64), True)
        sizes, values = batch.ptr.diff().tolist(), batch.to_dict()
        del values["ptr"], values["batch"]
        of_atoms = {"z", "pos", "force", *self.keep_atoms.values(), *({"y"} if self.per_atom else ())}
        parts = {key: value.split(sizes if key in of_atoms else 1) for key, value in values.items()}
        return [Data(**dict(zip(parts, row, strict=True))) for row in zip(*parts.values(), strict=True)]

    def _batch(self, frames: np.ndarray, positions: bool) -> Data:
        sizes = torch.from_numpy(self._sizes[frames])
        ptr = sizes_to_ptr(sizes)
        data = Data(z=self._atoms("z", frames).long())
        if positions:
            data.pos = torch.from_numpy(centred(self._atoms("pos", frames).numpy(), ptr.numpy())).float()
            if self.forces:
                force = self._atoms(f"atom_properties/{self.forces_key}", frames) * self.energy_unit
                data.force = force.float()
            for key, name in self.keep_atoms.items():
                values = self._atoms(f"atom_properties/{key}", frames)
                data[name] = values.double() if key in self._index.double else values.float()
        data.idx = torch.from_numpy(frames) % self.len()  # negative indices count from the end
        data.cluster_size = sizes
        data.group = self._index.group[frames].long()
        for key, values in self._index.kept.items():
            data[self.keep[key]] = values[frames]
        data.y = self._targets(frames, data.z, ptr)
        data.ptr, data.batch = ptr, ptr_to_batch(ptr)
        return data

    def _atoms(self, name: str, frames: np.ndarray) -> Tensor:
        """Read values of the atoms of clusters, ``[num_atoms, ...]``."""
        return torch.from_numpy(self._store.atoms(name, self._index.frames[frames].numpy()))

    def _targets(self, frames: np.ndarray, z: Tensor, ptr: Tensor) -> Tensor:
        if self._index.target is None:
            return self._atoms(f"atom_properties/{self.target}", frames).float()
        return self.relative_to(self.references, self._index.target[frames], z, ptr).to(self._energy_dtype)

    def _needed_precision(self) -> torch.dtype:
        """Return double precision if single precision would round a target noticeably, else single precision."""
        target = self._index.target
        largest = float(target.abs().max()) if target is not None and not self.references else 0.0
        self._energy_dtype = torch.double
        for frames, z, ptr in self._compositions() if self.references else ():
            energy = self._targets(frames, z, ptr)
            self.check_energies(energy, ptr.diff(), self.references)
            largest = max(largest, float(energy.abs().max()))
        return torch.double if is_coarse(largest) else torch.float32

    def _fitted(self) -> dict[int, float]:
        fit, target = ReferenceFit(), self._index.target
        assert target is not None
        for frames, z, ptr in self._compositions():
            fit.add(z, ptr, target[frames])
        return fit.solution()

    def _compositions(self) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
        """Yield indices, atomic numbers and offsets of clusters, a few thousand at a time."""
        for frames in np.array_split(np.arange(self.len()), -(-self.len() // CLUSTERS_AT_ONCE)):
            ptr = sizes_to_ptr(torch.from_numpy(self._sizes[frames]))
            yield frames, self._atoms("z", frames).long(), ptr
